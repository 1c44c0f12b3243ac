"""Compiles every kernel of custom_kernels/ with NVIDIA's compiler, for compute capabilities 7.5 to 12.0, without a GPU.

    python scripts/compile_cuda.py [ARCHITECTURE ...]                for example sm_90a

Needs the wheels nvidia-cuda-nvrtc-cu12, nvidia-cuda-nvcc-cu12, nvidia-cuda-runtime-cu12 and nvidia-cuda-cccl-cu12 in
this Python. The source is the one that MLX makes of a kernel, but for what its own headers declare beside the types of
arguments. CUDA's own sources are compiled for the architecture that they name. ptxas says how many registers a thread
takes and how many bytes it spills: a table has the most of each kernel.

Exit code 1: a kernel does not compile; a line says why. Exit code 2: no compiler, or an unknown architecture.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels.cuda import as_it_is, translate
from mlx_autoresearch.kernels.description import KernelFile, Sizes
from mlx_autoresearch.kernels.registry import find_kernel, kernel_names
from mlx_autoresearch.simulator import Kernel

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120a")
TYPES = {"bfloat16": "__nv_bfloat16", "float16": "__half", "bool": "bool", "float32": "float"}
# What of MLX's own headers a kernel can see: the types of its arguments, and what its shim takes from them.
PREAMBLE = """#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda/std/array>
#include <cuda/std/limits>
#include <cuda/std/tuple>
namespace mlx::core::cu {
using Shape = cuda::std::array<int32_t, 10>;
using Strides = cuda::std::array<int64_t, 10>;
}
"""


@dataclass(frozen=True)
class Cost:
    """Of one thread of a compiled kernel."""

    registers: int
    spilled: int  # bytes


def folder(wheel: str, part: str) -> Path:
    """Where a wheel of NVIDIA's keeps something. Raises UserError where it is not installed."""
    spec = find_spec("nvidia")
    places = [Path(place, wheel, part) for place in (spec and spec.submodule_search_locations) or []]
    for place in places:
        if place.exists():
            return place
    raise UserError(f"nvidia/{wheel} is missing: pip install nvidia-{wheel.replace('_', '-')}-cu12")


def cuda_type(dtype: str) -> str:
    return TYPES.get(dtype, f"{dtype}_t")


def cuda_source(kernel: Kernel, file: KernelFile, sizes: Sizes, text: tuple[str, str]) -> str:
    """The kernel as MLX would compile it. text: its body and header."""
    body, header = text
    call = file.launch(sizes)
    arguments = []
    for name in kernel.input_names:
        arguments.append(f"const {cuda_type(file.input_dtype(name, sizes))}* {name}")
        for attribute, kind in (("shape", "Shape"), ("strides", "Strides"), ("ndim", "int")):
            if re.search(rf"\b{name}_{attribute}\b", body):
                arguments.append(f"const __grid_constant__ {kind} {name}_{attribute}")
    outputs = zip(kernel.output_names, call.output_dtypes, strict=True)
    arguments += [f"{cuda_type(dtype)}* {name}" for name, dtype in outputs]
    constants = "".join(
        f"using {name} = {cuda_type(value)};\n"
        if isinstance(value, str)
        else f"constexpr {'bool' if isinstance(value, bool) else 'int'} {name} = {str(value).lower()};\n"
        for name, value in call.template
    )
    function = f"__global__ void {kernel.name}({', '.join(arguments)}) {{\n{constants}{body}\n}}\n"
    return f"{PREAMBLE}{header}namespace mlx::core::cu {{\n{function}}}\n"


def sources(file: KernelFile, architecture: str) -> Iterator[str]:
    """One for each template among the description's cases; CUDA's own for its cases too."""
    native = architecture.rstrip("a")
    described = file.description.cuda.get(native)
    seen = set()
    for case in [*file.description.cases, *(described.cases if described else ())]:
        sizes = file.resolve(case)
        own = file.native(native, sizes)
        for kernel, text in [(file.kernel, translate)] + ([(own.kernel, as_it_is)] if own else []):
            source = cuda_source(kernel, file, sizes, text(kernel))
            if source not in seen:
                seen.add(source)
                yield source


class Compiler:
    """NVRTC, which MLX uses too, and ptxas."""

    def __init__(self) -> None:
        (library,) = folder("cuda_nvrtc", "lib").glob("libnvrtc.so.*")
        self._nvrtc = ctypes.CDLL(str(library))
        self._ptxas = folder("cuda_nvcc", "bin") / "ptxas"
        includes = [folder("cuda_cccl", "include"), folder("cuda_runtime", "include")]
        self._options = ["--device-as-default-execution-space", *(f"--include-path={path}" for path in includes)]

    def compile(self, source: str, architecture: str) -> Cost | str:
        """What a thread takes, or the first error."""
        ptx = self._ptx(source, architecture.replace("sm_", "compute_"))
        if isinstance(ptx, str):
            return ptx
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary, "kernel.ptx")
            path.write_bytes(ptx)
            command = [self._ptxas, "-v", f"-arch={architecture}", path, "-o", path.with_suffix(".cubin")]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        if done.returncode:
            return _first_error(said)
        registers, spilled = re.search(r"Used (\d+) registers", said), re.search(r"(\d+) bytes spill stores", said)
        assert registers and spilled
        return Cost(int(registers[1]), int(spilled[1]))

    def _ptx(self, source: str, architecture: str) -> bytes | str:
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        self._nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
        try:
            options = [option.encode() for option in (*self._options, f"--gpu-architecture={architecture}")]
            failed = self._nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
            get = "ProgramLog" if failed else "PTX"
            getattr(self._nvrtc, f"nvrtcGet{get}Size")(program, ctypes.byref(size))
            text = ctypes.create_string_buffer(size.value)
            getattr(self._nvrtc, f"nvrtcGet{get}")(program, text)
        finally:
            self._nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
        return _first_error(text.value.decode(errors="replace")) if failed else text.value


def _first_error(said: str) -> str:
    lines = said.strip().splitlines() or ["it does not say why"]
    return next((line for line in lines if re.search(r"\berror\b", line)), lines[0])[:300]


def main() -> int:
    try:
        if unknown := [name for name in sys.argv[1:] if name not in ARCHITECTURES]:
            raise UserError(f"{unknown[0]}: the architectures are {', '.join(ARCHITECTURES)}")
        compiler = Compiler()
    except UserError as error:
        print(f"compile_cuda: {error}", file=sys.stderr)
        return 2
    return compile_all(compiler, sys.argv[1:] or list(ARCHITECTURES))


def compile_all(compiler: Compiler, architectures: list[str]) -> int:
    failed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for architecture in architectures:
            print(f"{architecture:<32}{'sources':>10}{'registers':>12}{'spilled bytes':>16}")
            for name in kernel_names():
                made = list(sources(find_kernel(name), architecture))
                results = list(pool.map(lambda source: compiler.compile(source, architecture), made))  # noqa: B023
                errors = [result for result in results if isinstance(result, str)]
                if errors:
                    failed += 1
                    print(f"{name} does not compile: {errors[0]}")
                    continue
                costs = [result for result in results if isinstance(result, Cost)]
                registers, spilled = (max(of) for of in zip(*((c.registers, c.spilled) for c in costs), strict=True))
                print(f"{name:<32}{len(made):>10}{registers:>12}{spilled:>16}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
