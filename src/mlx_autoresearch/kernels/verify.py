"""Verifies a kernel: static pass, checked simulation on awkward shapes in several orders, comparison with float64."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import numpy as np

from mlx_autoresearch.errors import GPUInterrupted, UserError, from_mlx
from mlx_autoresearch.machine import device
from mlx_autoresearch.plain_text import one_line
from mlx_autoresearch.simulator import Finding, Simulation, lint, run
from mlx_autoresearch.simulator.arrays import round_to_bfloat16, widen_bfloat16
from mlx_autoresearch.simulator.signature import SMALL, Input

from .description import Call, KernelFile, Sizes
from .launch import first_error, launches_on_gpu

SEEDS = (0, 1, 2)  # ascending, descending, random
EXHAUSTIVE_CASES = 80


@dataclass
class CaseReport:
    """What one launch gave: right if `findings` is empty."""

    sizes: Sizes
    seed: int
    findings: list[Finding]
    error: float = 0.0  # the largest, in units of the tolerance
    seconds: float = 0.0
    accesses: int = 0  # to memory, by all threads


@dataclass
class KernelReport:
    """What verifying a kernel gave: right if `findings` is empty."""

    name: str
    lint: list[Finding]
    cases: list[CaseReport] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    @property
    def findings(self) -> list[Finding]:
        """Those of the static pass, then those of every case."""
        return [*self.lint, *(finding for case in self.cases for finding in case.findings)]

    @property
    def error(self) -> float:
        """The largest of all cases, in units of the tolerance."""
        return max((case.error for case in self.cases), default=0.0)


_PRECISION = {"float16": (11, -24), "bfloat16": (8, -133)}  # binary digits, and the exponent of the smallest number


def half_a_unit(dtype: str, values: np.ndarray) -> np.ndarray:
    """How much rounding to a 16-bit dtype may change each value at most: half of its last digit; 0 of other dtypes."""
    if dtype not in _PRECISION:
        return np.zeros_like(values)
    digits, least = _PRECISION[dtype]
    _, exponents = np.frexp(values)  # |value| lies in [2^(e - 1), 2^e)
    return np.ldexp(0.5, np.maximum(exponents - digits, least))


def rounded(dtype: str, values: np.ndarray) -> np.ndarray:
    """Float64 values rounded to a 16-bit dtype, in which they may be infinite; as they are for other dtypes."""
    with np.errstate(over="ignore"):
        if dtype == "bfloat16":
            return widen_bfloat16(round_to_bfloat16(values.astype(np.float32))).astype(np.float64)
        return values.astype(np.float16).astype(np.float64) if dtype == "float16" else values


def _as_given(dtype: str, array: np.ndarray) -> tuple[Any, np.ndarray]:
    """The input as an mx array of its dtype, and the same values in float64 (or as integers)."""
    if dtype == "bfloat16":
        bits = round_to_bfloat16(array)
        return mx.array(bits).view(mx.bfloat16), widen_bfloat16(bits).astype(np.float64)
    typed = array.astype(dtype)
    return mx.array(typed), typed.astype(np.float64) if "float" in dtype else typed


def _as_float64(output: Any) -> np.ndarray:
    return np.array(output.astype(mx.float32) if output.dtype == mx.bfloat16 else output).astype(np.float64)


def compare(
    file: KernelFile, call: Call, outputs: Sequence[Any], exact: Sequence[np.ndarray], source: str | None = None
) -> tuple[list[Finding], float]:
    """Outputs against their definition: findings, and the largest error in units of the tolerance.

    source: the file that findings name; default: the Metal source. The error is what is left beyond rounding to the
    output's dtype, relative to 1 + |value|. Infinities must be equal, and NaN is always wrong.
    """
    definition = _defined(file, call, exact)
    findings, worst = [], 0.0
    for name, dtype, output in zip(file.kernel.output_names, call.output_dtypes, outputs, strict=True):
        if name not in definition:  # there is none
            continue
        expected, got = definition[name], _as_float64(output)
        with np.errstate(invalid="ignore"):
            beyond = np.maximum(np.abs(got - expected) - half_a_unit(dtype, expected), 0.0)
            error = np.where(got == rounded(dtype, expected), 0.0, beyond / (1 + np.abs(expected)))
        error = np.nan_to_num(error, nan=np.inf)
        largest = float(error.max(initial=0.0))
        tolerance = file.tolerance(name, dtype)
        worst = max(worst, largest / tolerance if tolerance else largest and np.inf)
        if largest > tolerance:
            place = np.unravel_index(int(error.argmax()), error.shape)
            index = ", ".join(str(int(i)) for i in place)
            message = (
                f"{name}[{index}] is {got[place]:.6g}, defined as {expected[place]:.6g}; "
                f"{int((error > tolerance).sum())} of {error.size} elements exceed the tolerance {tolerance:g}"
            )
            findings.append(Finding("wrong-result", message, source or file.kernel.source_file))
    return findings, worst


def _defined(file: KernelFile, call: Call, exact: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs by their definition, every one in its shape and float64; empty where there is no definition.

    Raises UserError for a definition that fails or gives anything else: what is not compared would pass for right.
    """
    if file.definition is None:
        return {}
    what, declared = f"{file.name}: the definition", ", ".join(file.kernel.output_names)
    try:
        given = file.definition(**dict(zip(call.inputs, exact, strict=True)))
    except (Exception, SystemExit) as error:  # it is somebody's code
        raise UserError(f"{what} fails: {type(error).__name__}: {one_line(str(error), 200)}") from None
    if not isinstance(given, dict) or given.keys() != set(file.kernel.output_names):
        gave = ", ".join(map(str, given)) or "none" if isinstance(given, dict) else type(given).__name__
        raise UserError(f"{what} must return a dict of the outputs {declared}, got {one_line(gave, 200)}")
    defined = {}
    for name, shape in zip(file.kernel.output_names, call.output_shapes, strict=True):
        try:
            defined[name] = np.asarray(given[name], np.float64)
        except (TypeError, ValueError):
            raise UserError(f"{what} gives {name} as {type(given[name]).__name__}, not as an array") from None
        if defined[name].shape != shape:
            raise UserError(f"{what} gives {name} the shape {defined[name].shape}, the YAML {shape}")
    return defined


@dataclass
class Simulated:
    """A launch in the simulator: what was asked, the inputs in float64 (or as integers), what it gave."""

    call: Call
    exact: list[np.ndarray]
    simulation: Simulation


def simulate_case(file: KernelFile, sizes: Sizes, seed: int, **options: Any) -> Simulated:
    """One launch. `sizes` need not be resolved; `seed` orders the threads and draws the inputs; options of `run`."""
    call = file.call(file.resolve(sizes), seed)
    given = [_as_given(dtype, array) for dtype, array in call.inputs.values()]
    simulation = run(
        file.kernel,
        [array for array, _ in given],
        output_shapes=call.output_shapes,
        output_dtypes=call.output_dtypes,
        template=call.template,
        grid=call.grid,
        threadgroup=call.threadgroup,
        init_value=call.init_value,
        seed=seed,
        static_pass=False,  # lint_kernel does it once, for all sizes
        **options,
    )
    return Simulated(call, [exact for _, exact in given], simulation)


def run_case(
    file: KernelFile,
    sizes: Sizes,
    seed: int,
    checked: bool = True,
    seconds: float = 60.0,
    compiler: str | None = None,
    folder: Path | None = None,
) -> CaseReport:
    """One launch in the simulator, compared with the definition; arguments as of `simulate_case`.

    The compiled kernel is put into the cache, or into `folder`.
    """
    started = time.perf_counter()
    done = simulate_case(file, sizes, seed, checked=checked, seconds=seconds, compiler=compiler, folder=folder)
    findings, error = done.simulation.findings, 0.0
    if not findings:
        findings, error = compare(file, done.call, done.simulation.outputs, done.exact)
    return CaseReport(sizes, seed, findings, error, time.perf_counter() - started, done.simulation.accesses)


def lint_kernel(file: KernelFile, compiler: str | None = None) -> tuple[list[Finding], list[str]]:
    """The static pass for every distinct template and every input that may have fewer than 8 elements."""
    findings: dict[Finding, None] = {}
    unchecked: dict[str, None] = {}
    seen = set()
    for sizes in file.description.cases:
        call = file.call(file.resolve(sizes))
        inputs = [Input(dtype, array.ndim, array.size < SMALL) for dtype, array in call.inputs.values()]
        described = file.description.inputs.values()
        small = [given.value is None and given.min_elements < SMALL for given in described]
        key = (tuple(i.dtype for i in inputs), tuple(call.template))
        if key in seen:
            continue
        seen.add(key)
        result = lint(file.kernel, inputs, call.output_dtypes, call.template, small, compiler)
        findings.update(dict.fromkeys(result.findings))
        unchecked.update(dict.fromkeys(result.unchecked))
    return list(findings), list(unchecked)


def cases(
    file: KernelFile, shapes: Sequence[Sizes], seeds: Sequence[int], exhaustive: bool
) -> Iterator[tuple[Sizes, int]]:
    """The sizes and seeds to run: those asked for, otherwise the YAML's; `exhaustive` adds random ones."""
    for sizes in shapes or file.description.cases:
        for seed in seeds:
            yield sizes, seed
    if exhaustive and file.description.random:
        source = random.Random(0)
        for number in range(EXHAUSTIVE_CASES):
            yield file.random_sizes(source), 2 + number


def verify(
    file: KernelFile,
    shapes: Sequence[Sizes] = (),
    seeds: Sequence[int] = SEEDS,
    exhaustive: bool = False,
    compiler: str | None = None,
) -> KernelReport:
    """Verifies a kernel in the simulator.

    Args:
        shapes: sizes to use instead of the description's cases.
        seeds: orders of execution; each also draws other inputs.
        exhaustive: add 80 random sizes from the description's `random`, each in a random order.
        compiler: path of the compiler; default: the best one found.
    """
    findings, unchecked = lint_kernel(file, compiler)
    report = KernelReport(file.name, findings, unchecked=unchecked)
    if file.definition is None:
        report.unchecked.append("no definition was given: results were not compared")
    # Launches take turns; what runs side by side is the compiler.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = cases(file, shapes, seeds, exhaustive)
        report.cases = list(pool.map(lambda job: run_case(file, *job, compiler=compiler), jobs))
    return report


def require_gpu(language: Literal["metal", "cuda"]) -> None:
    """Raises UserError, in one line, where MLX does not compute on a GPU of this language."""
    if device.kernel_backend() != language:
        needed = {"metal": "a Mac with Apple silicon", "cuda": "an NVIDIA GPU and MLX's CUDA wheel"}[language]
        raise UserError(f"kernels: this machine has no {language.capitalize()} device: {needed} would be one")


def verify_on_gpu(file: KernelFile, language: Literal["metal", "cuda"], shapes: Iterable[Sizes] = ()) -> KernelReport:
    """Runs the same cases on this machine's GPU and compares with the same definition.

    A case that CUDA's own source takes too is run twice, by what the Metal source is translated to and by that source.
    A case that does not compile or cannot be launched is a finding, and so is one in which macOS stopped the work; its
    text says that the kernel need not be to blame. Raises UserError where there is no such GPU.
    """
    require_gpu(language)
    report = KernelReport(file.name, [])
    native = file.description.cuda.get(device.architecture())
    for sizes in shapes or [*file.description.cases, *(native.cases if native else ())]:
        started = time.perf_counter()
        resolved = file.resolve(sizes)
        call = file.call(resolved)
        given = [_as_given(dtype, array) for dtype, array in call.inputs.values()]
        for launch in launches_on_gpu(file, language, resolved):
            try:
                outputs = launch.run([array for array, _ in given])
                mx.eval(outputs)
            except (RuntimeError, ValueError) as broken:
                said = from_mlx(broken)
                text = str(said) if isinstance(said, GPUInterrupted) else first_error(broken)
                findings, error = [Finding("launch-error", text, launch.file)], 0.0
            else:
                findings, error = compare(file, call, outputs, [exact for _, exact in given], launch.file)
            report.cases.append(CaseReport(sizes, 0, findings, error, time.perf_counter() - started))
    return report
