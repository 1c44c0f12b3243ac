"""One launch of a kernel, from arrays to arrays or findings: `simulate`, and `metal_kernel` as MLX spells it."""

from __future__ import annotations

import ctypes
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlx_autoresearch.errors import UserError

from .abi import (
    IS_INITIALISED,
    IS_OUTPUT,
    MAX_FINDINGS,
    Buffer,
    FindingRecord,
    Launch,
    load_entry,
    load_runtime,
    run_launch,
)
from .arrays import HostArray, from_host, is_mx, make_output, to_host
from .build import Diagnostic, build_kernel
from .compilers import find_compiler
from .findings import Finding, KernelFault, merge
from .instrumentation import COUNTERS, Instrumented, Place, instrument
from .kernel import Kernel
from .lint import lint
from .signature import Input, Template, extras, make_signature
from .symbols import locate
from .translation import check_dialect, runnable_source

_MOST_THREADGROUPS = 2**26  # whose order takes 256 MiB


class UncheckedWarning(UserWarning):
    """The compiler at hand cannot do some of the checks."""


@dataclass
class Simulation:
    """What a launch gave. `outputs` holds garbage where `findings` is not empty."""

    outputs: list[Any]
    findings: list[Finding]
    threadgroup_bytes: int = 0
    accesses: int = 0
    collectives: int = 0
    switches: int = 0
    unchecked: list[str] = field(default_factory=list)
    counts: dict[Place, tuple[int, ...]] = field(default_factory=dict)  # where coverage was asked for
    unmeasured: tuple[str, ...] = ()  # what has no counts, in words


def simulate(kernel: Kernel, inputs: Sequence[Any], **call: Any) -> list[Any]:
    """Runs a Metal kernel on this CPU and checks every access it makes.

    Takes the keyword arguments of a `mx.fast.metal_kernel` object's call and those of `run`. Returns the outputs: mx
    arrays if an input is one, otherwise numpy arrays (bfloat16 as float32, which holds it exactly).

    Raises KernelFault with findings if anything is wrong with the kernel, UserError if the call is.
    """
    simulation = run(kernel, inputs, **call)
    if simulation.findings:
        raise KernelFault(simulation.findings)
    if simulation.unchecked:
        warnings.warn(f"simulator: not checked: {'; '.join(simulation.unchecked)}", UncheckedWarning, stacklevel=2)
    return simulation.outputs


class CallableKernel(Kernel):
    """A kernel that is launched by calling it, as the objects of `mx.fast.metal_kernel` are."""

    def __call__(self, **call: Any) -> list[Any]:
        """`simulate` with the keyword arguments of a `mx.fast.metal_kernel` object's call."""
        return simulate(self, **call)


def metal_kernel(
    name: str,
    input_names: Sequence[str],
    output_names: Sequence[str],
    source: str,
    header: str = "",
    ensure_row_contiguous: bool = True,
    atomic_outputs: bool = False,
    compile_options: Any = None,
) -> CallableKernel:
    """`mx.fast.metal_kernel` for machines without Metal: the same arguments, and an object that is called the same way.

    `compile_options` (the math mode) makes no difference here: the simulator computes in IEEE float32.
    """
    return CallableKernel(name, input_names, output_names, source, header, ensure_row_contiguous, atomic_outputs)


def run(
    kernel: Kernel,
    inputs: Sequence[Any],
    *,
    output_shapes: Sequence[Sequence[int]],
    output_dtypes: Sequence[Any],
    grid: Sequence[int],
    threadgroup: Sequence[int],
    template: Template = (),
    init_value: float | None = None,
    verbose: bool = False,
    stream: Any = None,
    checked: bool = True,
    seed: int = 0,
    static_pass: bool = True,
    allow_unwritten: bool = False,
    seconds: float = 60.0,
    compiler: str | None = None,
    folder: Path | None = None,
    coverage: bool = False,
) -> Simulation:
    """As `simulate`, but returns what was found instead of raising.

    Args:
        inputs: mx arrays, numpy arrays or numbers, in the order of `kernel.input_names`.
        grid: threads in x, y, z (not threadgroups); the last threadgroups may be partial, as in Metal.
        template: (name, dtype, int or bool) pairs.
        init_value: what outputs hold before the launch; without it they hold garbage.
        verbose: print the C++ that is compiled.
        stream: accepted and ignored.
        checked: False runs without instrumentation, several times faster: only divergence, limits, crashes and
            endless loops are found then.
        seed: order in which threads and threadgroups run: 0 ascending, 1 descending, otherwise random.
        static_pass: check address spaces too (with clang).
        allow_unwritten: outputs need not be written everywhere.
        seconds: after this long the kernel is taken to be in an endless loop.
        compiler: path of the compiler to use; default: the best one found.
        folder: where the compiled kernel is put; default: the cache.
        coverage: count which way conditions went and how many rounds loops made (instrumentation.py); needs clang.
    """
    for what, given, names in (
        ("inputs", inputs, kernel.input_names),
        ("output_shapes", output_shapes, kernel.output_names),
        ("output_dtypes", output_dtypes, kernel.output_names),
    ):
        if len(given) != len(names):
            raise UserError(f"{kernel.name}: expected {len(names)} {what} ({', '.join(names)}), got {len(given)}")
    for what, size in (("grid", grid), ("threadgroup", threadgroup)):
        if len(size) != 3 or min(size) < 0 or max(size) >= 2**32:
            raise UserError(f"{kernel.name}: {what} must be three sizes of at most 32 bits, got {tuple(size)}")
    count = math.prod(-(-all_ // min(all_, one)) for all_, one in zip(grid, threadgroup, strict=True) if all_ and one)
    if count > _MOST_THREADGROUPS:
        raise UserError(
            f"{kernel.name}: {count} threadgroups are too many to simulate, at most {_MOST_THREADGROUPS} are not"
        )
    chosen = find_compiler(compiler)
    arrays = [to_host(value, kernel.ensure_row_contiguous) for value in inputs]
    outputs = [make_output(s, d, init_value) for s, d in zip(output_shapes, output_dtypes, strict=True)]
    given = [Input.of(array) for array in arrays]
    as_mx = any(is_mx(value) for value in inputs)

    findings = check_dialect(kernel, knows_columns=chosen.is_clang)
    unchecked: list[str] = []
    if checked and static_pass:
        result = lint(kernel, given, output_dtypes, template, compiler=compiler)
        findings, unchecked = result.findings, result.unchecked
    if any(finding.what in ("unsupported", "threadgroup-outside-kernel", "ambiguous-place") for finding in findings):
        return Simulation([], findings)

    source = runnable_source(kernel, make_signature(kernel, given, output_dtypes, template))
    counted = instrument(source, frozenset(kernel.files), chosen) if coverage else Instrumented(source)
    source, counters = counted.source, (ctypes.c_uint64 * (COUNTERS * len(counted.places)))()
    if verbose:
        print(source)
    library, said = build_kernel(source, kernel.name, chosen, checked, folder)
    findings += _diagnosed(said, kernel)
    if library is None:
        return Simulation([], merge(findings))

    load_runtime(chosen)
    buffers, kept = _buffers(kernel, arrays, outputs, init_value is not None)
    records = (FindingRecord * MAX_FINDINGS)()
    launch = Launch(
        entry=load_entry(library),
        buffers=buffers,
        n_buffers=len(buffers),
        grid=(ctypes.c_uint32 * 3)(*grid),
        threadgroup=(ctypes.c_uint32 * 3)(*threadgroup),
        order=seed,
        checked=checked,
        allow_unwritten=allow_unwritten,
        seconds=seconds,
        findings=records,
        max_findings=MAX_FINDINGS,
        counters=counters,
        n_counters=len(counters),
    )
    run_launch(launch)
    del kept
    findings += _found(records[: launch.n_findings], library, kernel)
    return Simulation(
        [from_host(output, as_mx) for output in outputs],
        merge(findings),
        launch.threadgroup_bytes,
        launch.accesses,
        launch.collectives,
        launch.switches,
        unchecked,
        {place: tuple(counters[COUNTERS * i : COUNTERS * (i + 1)]) for i, place in enumerate(counted.places)},
        counted.unmeasured,
    )


def _buffers(kernel: Kernel, arrays: list[HostArray], outputs: list[HostArray], initialised: bool):
    """The buffers in the order of the signature, and the arrays that must outlive the launch."""
    kept: list[np.ndarray] = []
    buffers: list[Buffer] = []

    def add(array: np.ndarray, name: str, flags: int = 0, first: int = 0) -> None:
        kept.append(array)
        first *= array.itemsize
        buffers.append(Buffer(array.ctypes.data, array.nbytes, first, name.encode(), array.itemsize, flags))

    for name, array in zip(kernel.input_names, arrays, strict=True):
        add(array.span(), name, first=array.first)
        if array.storage.ndim:
            shape, strides, ndim = extras(kernel, name)
            if shape:
                add(np.array(array.shape, np.int32), f"{name}_shape")
            if strides:
                add(np.array(array.strides, np.int64), f"{name}_strides")
            if ndim:
                add(np.array([array.storage.ndim], np.int32), f"{name}_ndim")
    for name, output in zip(kernel.output_names, outputs, strict=True):
        add(output.storage, name, IS_OUTPUT | (IS_INITIALISED if initialised else 0))
    return (Buffer * len(buffers))(*buffers), kept


def _diagnosed(said: list[Diagnostic], kernel: Kernel) -> list[Finding]:
    """Errors, and the warnings that mean a bug."""
    findings = []
    for entry in said:
        promoted = entry.option == "-Wdouble-promotion" and "'double'" in entry.message  # clang's: half to float, too
        if "double_is_not_a_metal_type" in entry.message or promoted:
            what = "double-arithmetic"
        elif "uninitialized" in entry.option and entry.file in kernel.files:
            what = "uninitialised-variable"
        elif entry.severity == "error":
            what = "compile-error"
        else:
            continue
        findings.append(Finding(what, entry.message, *entry.place_in(kernel.files)))
    return findings


def _found(records: Sequence[FindingRecord], library: Path, kernel: Kernel) -> list[Finding]:
    places = locate(library, (r.address for r in records if r.address), kernel.files)
    findings = []
    for record in records:
        file, line = record.file.decode(errors="replace"), int(record.line)
        if record.address:
            file, line = places.get(record.address, (kernel.source_file, 0))
        position = tuple(record.thread), tuple(record.threadgroup)
        whole = not record.address and not line  # about the launch, not a thread
        findings.append(
            Finding(
                record.kind.decode(),
                record.message.decode(errors="replace"),
                file or kernel.source_file,
                line,
                None if whole else position[0],
                None if whole else position[1],
                int(record.count),
            )
        )
    return findings
