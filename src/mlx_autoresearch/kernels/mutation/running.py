"""Runs mutants on their kernel's cases, the cheapest first, until one finds them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels.description import KernelFile, Sizes
from mlx_autoresearch.kernels.verify import SEEDS, run_case
from mlx_autoresearch.simulator import find_compiler
from mlx_autoresearch.simulator.build import machine_code
from mlx_autoresearch.simulator.signature import SMALL, Input, make_signature
from mlx_autoresearch.simulator.translation import runnable_source

from .mutants import Mutant

_SLOWEST = 200_000  # accesses a second that a mutant makes at least, unless its loop has no end

Verdict = Literal["found", "survived", "same code", "does not compile"]


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant; of one that was found, the finding's kind, and the sizes of the case that found it."""

    mutant: Mutant
    verdict: Verdict
    finding: str = ""
    sizes: Sizes | None = None


@dataclass(frozen=True)
class _Case:
    sizes: Sizes
    seed: int
    template: str
    seconds: float  # how long it may take a mutant


def run_mutants(file: KernelFile, mutants: Sequence[Mutant], compiler: str | None = None) -> Iterator[Outcome]:
    """What becomes of each, in their order.

    Raises UserError if the kernel has no definition to compare with, or is not right itself.
    """
    if file.definition is None:
        raise UserError(f"{file.name}: a kernel needs a definition, or no wrong result is noticed")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        cases = _cheapest_first(file, pool, compiler)
        yield from pool.map(lambda mutant: _run(mutant, cases, compiler), mutants)


def _cheapest_first(file: KernelFile, pool: ThreadPoolExecutor, compiler: str | None) -> list[_Case]:
    """The cases by the accesses they make, those of one template together; then again in the other orders of threads.

    To compile takes longer than to run.
    """
    jobs = [(sizes, seed) for seed in SEEDS for sizes in file.description.cases]
    reports = list(pool.map(lambda job: run_case(file, *job, compiler=compiler), jobs))
    cheapest: dict[str, int] = {}
    for report in reports:
        if report.findings:
            raise UserError(f"{file.name}: `kernels verify` finds a fault in the kernel itself: {report.findings[0]}")
        template = _template(file, report.sizes)
        cheapest[template] = min(report.accesses, cheapest.get(template, report.accesses))
    found = [_Case(r.sizes, r.seed, _template(file, r.sizes), 5 + r.accesses / _SLOWEST) for r in reports]
    return sorted(found, key=lambda c: (SEEDS.index(c.seed), cheapest[c.template], c.template, c.seconds))


def _template(file: KernelFile, sizes: Sizes) -> str:
    return str(file.launch(file.resolve(sizes)).template)


def _run(mutant: Mutant, cases: list[_Case], compiler: str | None) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="mlx_autoresearch-mutant-") as folder:
        for case in cases:
            # The first template finds most mutants. Of the others only those are compiled in which the code differs.
            if case.template != cases[0].template and not _changes_code(mutant, case.sizes, compiler):
                continue
            report = run_case(
                mutant.mutated, case.sizes, case.seed, seconds=case.seconds, compiler=compiler, folder=Path(folder)
            )
            if any(finding.what in ("compile-error", "unsupported") for finding in report.findings):
                return Outcome(mutant, "does not compile")
            if report.findings:
                return Outcome(mutant, "found", report.findings[0].what, case.sizes)
    changed = any(_changes_code(mutant, case.sizes, compiler) for case in cases)
    return Outcome(mutant, "survived" if changed else "same code")


def _changes_code(mutant: Mutant, sizes: Sizes, compiler: str | None) -> bool:
    """Whether the optimiser makes other code of the mutant than of the kernel, for the template of these sizes."""
    return _code(_source(mutant.file, sizes), compiler) != _code(_source(mutant.mutated, sizes), compiler)


@lru_cache(maxsize=256)
def _code(source: str, compiler: str | None) -> bytes:
    return hashlib.sha256(machine_code(source, find_compiler(compiler))).digest()


def _source(file: KernelFile, sizes: Sizes) -> str:
    call = file.call(file.resolve(sizes))
    inputs = [Input(dtype, array.ndim, array.size < SMALL) for dtype, array in call.inputs.values()]
    return runnable_source(file.kernel, make_signature(file.kernel, inputs, call.output_dtypes, call.template))
