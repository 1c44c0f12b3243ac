"""Launches a kernel of custom_kernels/ by name, on Metal, on CUDA or in the simulator: one source, one YAML."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx

from mlx_autoresearch.errors import raise_interruption
from mlx_autoresearch.machine import device
from mlx_autoresearch.machine.resident import constant
from mlx_autoresearch.plain_text import one_line
from mlx_autoresearch.simulator import Kernel, KernelFault
from mlx_autoresearch.simulator import run as simulate

from .alternatives import Language
from .description import KernelFile, Launch, Sizes
from .registry import kernel_folder
from .source import load_kernel
from .threads import open_size, smallest, threads_that_fit, too_many_threads

Launched = tuple[str, Literal["metal", "cuda"], tuple[tuple[str, Any], ...]]  # name, language, sizes

_launched: ContextVar[dict[Launched, None] | None] = ContextVar("launched", default=None)
_LONGEST = 200  # characters of an error


class BrokenKernel(Exception):
    """A kernel that the GPU's compiler refuses, or that cannot be launched."""


def launch(name: str, language: Language, inputs: Mapping[str, mx.array], **sizes: Any) -> list[mx.array]:
    """The outputs of one launch of the kernel `name`, in the YAML's order.

    inputs: the arrays that the YAML describes by a shape; those it gives by value follow from `sizes`, its names for
    lengths and dtypes. "simulator" checks every access and needs values at once, so that it runs under `mx.grad` but
    not under `mx.compile`.

    Raises ValueError when an input is not what the YAML says, KernelFault when the simulator finds a fault.
    """
    given = tuple(sorted(sizes.items()))
    launched = _launched.get()
    if launched is not None and language != "simulator":
        launched[name, language, given] = None
    return _launcher(kernel_folder(), name, language, given)(inputs)


@contextmanager
def launches() -> Iterator[dict[Launched, None]]:
    """Collects what is launched on a GPU inside, each combination of sizes once, in order."""
    found: dict[Launched, None] = {}
    token = _launched.set(found)
    try:
        yield found
    finally:
        _launched.reset(token)


def try_out(launched: Launched) -> None:
    """Launch a kernel once, on zeros. MLX compiles it now, not in the middle of a step that uses many.

    Raises BrokenKernel, which names the kernel, where the GPU's compiler refuses it or it cannot be launched.
    """
    name, language, sizes = launched
    file = _file(kernel_folder(), name)
    arrays = _zeros(file, file.resolve(dict(sizes)))
    try:
        mx.eval(launch(name, language, arrays, **dict(sizes)))
    except (RuntimeError, ValueError) as error:
        raise_interruption(error)
        raise BrokenKernel(f"{name} on {language}: {first_error(error)}") from error


def first_error(error: Exception) -> str:
    """One line of what MLX says of a kernel: the compiler's first error where there is one."""
    if said := too_many_threads(str(error)):
        return said
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return one_line(next((line for line in lines if re.search(r"\berror\b", line)), lines[0]), _LONGEST)


@lru_cache(maxsize=1024)
def _launcher(
    folder: Path, name: str, language: Language, sizes: tuple[tuple[str, Any], ...]
) -> Callable[[Mapping[str, mx.array]], list[mx.array]]:
    """`launch` at given sizes: whatever follows from them alone is worked out once.

    `folder` is part of the key: another one has other kernels by the same names.
    """
    file = _file(folder, name)
    resolved = _sizes_on_metal(folder, name, dict(sizes)) if language == "metal" else file.resolve(dict(sizes))
    values = {given: constant(mx.array(value)) for given, value in file.values(resolved).items()}
    expected = {
        given: (file.input_shape(given, resolved), mlx_dtype(file.input_dtype(given, resolved)))
        for given in file.description.inputs
    }

    def launch_with(inputs: Mapping[str, mx.array]) -> list[mx.array]:
        given = {**values, **inputs}
        if given.keys() != expected.keys():
            raise ValueError(f"[{name}] expected the inputs {list(expected)}, got {list(given)}")
        for which, (shape, dtype) in expected.items():
            if given[which].shape != shape or given[which].dtype != dtype:
                raise ValueError(
                    f"[{name}] {which} must be {shape} of {dtype}, got {given[which].shape} of {given[which].dtype}"
                )
        return run([given[which] for which in expected])

    if language == "simulator":
        run: Callable[[list[mx.array]], list[mx.array]] = partial(_simulate, file, file.launch(resolved))
    else:
        run = launches_on_gpu(file, language, resolved)[-1].run
    return launch_with


def _sizes_on_metal(folder: Path, name: str, sizes: dict[str, Any]) -> Sizes:
    """The resolved sizes, with as many threads as the GPU takes."""
    file = _file(folder, name)
    threads = open_size(file)
    if threads is None or threads in sizes:
        return file.resolve(sizes)
    small = tuple(sorted(smallest(file, sizes).items()))
    return file.resolve({**sizes, threads: _threads_on_metal(folder, name, small)})


@lru_cache(maxsize=1024)
def _threads_on_metal(folder: Path, name: str, sizes: tuple[tuple[str, Any], ...]) -> int:
    """How many threads a kernel may have. It is launched once to see, for each template that it is used with."""
    file = _file(folder, name)

    def run_once(resolved: Sizes) -> None:
        given = {name: mx.array(value) for name, value in file.values(resolved).items()} | _zeros(file, resolved)
        mx.eval(launches_on_gpu(file, "metal", resolved)[-1].run([given[name] for name in file.description.inputs]))

    return threads_that_fit(file, dict(sizes), run_once)


def _zeros(file: KernelFile, resolved: Sizes) -> dict[str, mx.array]:
    """The inputs that the YAML describes by a shape."""
    return {
        given: mx.zeros(file.input_shape(given, resolved), mlx_dtype(file.input_dtype(given, resolved)))
        for given, described in file.description.inputs.items()
        if described.value is None
    }


@lru_cache
def _file(folder: Path, name: str) -> KernelFile:
    if Path(name).name != name:
        raise ValueError(f"[launch] {name!r:.100} is no name of a kernel in {folder.name}/")
    return load_kernel(folder / f"{name}.metal")


@dataclass(frozen=True)
class GPULaunch:
    """run: from inputs to outputs, by one launch of the source `file`. Outputs are not evaluated: errors come then."""

    file: str
    run: Callable[[list[mx.array]], list[mx.array]]


def launches_on_gpu(file: KernelFile, language: Literal["metal", "cuda"], resolved: Sizes) -> list[GPULaunch]:
    """Every way to launch a kernel at resolved sizes; the last one is the one to use.

    The first is the Metal source. A second one is CUDA's own, where this GPU and these sizes have it.
    """
    launches = [GPULaunch(file.kernel.source_file, partial(_run, _built(file.kernel, language), file.launch(resolved)))]
    if language == "cuda" and (native := file.native(device.architecture(), resolved)):
        own = _built_native(native.kernel, native.shared_memory)
        launches.append(GPULaunch(native.kernel.source_file, partial(_run, own, native.launch)))
    return launches


def _run(kernel: Callable[..., list[mx.array]], call: Launch, arrays: list[mx.array]) -> list[mx.array]:
    return kernel(
        inputs=arrays,
        template=[(key, mlx_dtype(value) if isinstance(value, str) else value) for key, value in call.template],
        grid=call.grid,
        threadgroup=call.threadgroup,
        output_shapes=call.output_shapes,
        output_dtypes=[mlx_dtype(dtype) for dtype in call.output_dtypes],
        **({} if call.init_value is None else {"init_value": call.init_value}),
    )


def mlx_dtype(name: str) -> mx.Dtype:
    """MLX's dtype of a name such as "bfloat16"."""
    return mx.bool_ if name == "bool" else getattr(mx, name)


@lru_cache
def _built(kernel: Kernel, language: Literal["metal", "cuda"]) -> Callable[..., list[mx.array]]:
    """The kernel as MLX takes it, built once: MLX compiles it for every template it meets."""
    if language == "metal":
        header, source = metal_text(kernel)
        return mx.fast.metal_kernel(
            kernel.name,
            input_names=list(kernel.input_names),
            output_names=list(kernel.output_names),
            source=source,
            header=header,
            atomic_outputs=kernel.atomic_outputs,
        )  # type: ignore[return-value]
    from .cuda import translate

    return _cuda(kernel, *translate(kernel))


@lru_cache
def _built_native(kernel: Kernel, shared_memory: int) -> Callable[..., list[mx.array]]:
    """The same of CUDA's own source."""
    from .cuda import as_it_is

    return _cuda(kernel, *as_it_is(kernel), shared_memory)


def _cuda(kernel: Kernel, source: str, header: str, shared_memory: int = 0) -> Callable[..., list[mx.array]]:
    # MLX keeps compiled CUDA on disk by name and template alone: an edited kernel must have another name.
    digest = hashlib.sha256((header + source).encode()).hexdigest()[:12]
    return mx.fast.cuda_kernel(
        f"{kernel.name}_{digest}",
        input_names=list(kernel.input_names),
        output_names=list(kernel.output_names),
        source=source,
        header=header,
        shared_memory=shared_memory,
    )  # type: ignore[return-value]


def metal_text(kernel: Kernel) -> tuple[str, str]:
    """Header and body as MLX gets them, so that errors of Apple's compiler name the kernel's own files and lines.

    MLX writes them behind one another, with a signature between, and the header behind a preamble of its own.
    """
    return (
        f'\n#line {kernel.header_line} "{kernel.header_file}"\n{kernel.header}\n#line 1 "signature of {kernel.name}"\n',
        f'#line {kernel.source_line} "{kernel.source_file}"\n{kernel.source}',
    )


def _simulate(file: KernelFile, call: Launch, arrays: list[mx.array]) -> list[mx.array]:
    simulation = simulate(file.kernel, arrays, **vars(call), static_pass=False)  # `kernels verify` does that pass
    if simulation.findings:
        raise KernelFault(simulation.findings)
    return simulation.outputs
