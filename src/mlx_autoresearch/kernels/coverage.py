"""Which parts of a kernel the cases of its YAML reach in the simulator: conditions, loops, types, values and tiles."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.simulator import find_compiler
from mlx_autoresearch.simulator.instrumentation import Place, require_clang

from .description import KernelFile, Sizes
from .tried import ranges, untried
from .verify import SEEDS, cases, simulate_case

Counts = tuple[int, ...]  # of a place: simulator/shim/coverage.h
_SIDES = ("false", "true")
_ROUNDS = ("0", "1", "2", "3+")


@dataclass(frozen=True)
class Gap:
    """What no case reaches. `place` is "norm.h:8", or nothing where it is not about a line."""

    place: str
    what: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}" if self.place else self.what

    @property
    def key(self) -> str:
        """What the YAML calls it under `unreachable`: the same without the line's number."""
        return f"{self.place.rpartition(':')[0]}: {self.what}" if self.place else self.what


@dataclass(frozen=True)
class Coverage:
    """What the cases of a kernel reach."""

    name: str
    places: dict[Place, Counts]
    sizes: dict[str, tuple[float, float]]  # the smallest and the largest that was tried
    unreached: list[Gap]  # without a reason
    argued: list[tuple[Gap, str]]  # with the reason that the YAML gives
    untrue: list[str]  # what the YAML calls unreachable and is not
    unmeasured: list[str]  # what has no counters, in words

    @property
    def complete(self) -> bool:
        """Whether nothing is unreached without a reason, and every reason holds."""
        return not self.unreached and not self.untrue


def measure(
    file: KernelFile,
    shapes: Sequence[Sizes] = (),
    seeds: Sequence[int] = SEEDS,
    exhaustive: bool = False,
    compiler: str | None = None,
) -> Coverage:
    """Runs what `verify` runs once more, with counters and without checks, and says what it does not reach.

    Arguments as of `verify`. Raises UserError without clang, whose syntax tree says where conditions and loops stand.
    """
    require_clang(find_compiler(compiler))
    jobs = list(cases(file, shapes, seeds, exhaustive))
    places: dict[Place, Counts] = {}
    unmeasured: dict[str, None] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = pool.map(
            lambda job: simulate_case(file, *job, checked=False, compiler=compiler, coverage=True).simulation, jobs
        )
        for run in runs:
            if not run.counts:  # it was not even launched
                raise UserError(f"{file.name}: with counters the kernel cannot be run: {run.findings[0]}")
            for place, counts in run.counts.items():
                before = places.get(place, (0,) * len(counts))
                places[place] = tuple(a + b for a, b in zip(counts, before, strict=True))
            unmeasured.update(dict.fromkeys(run.unmeasured))
    tried = [file.resolve(sizes) for sizes, _ in jobs]
    gaps = [*_unreached(places, {file.kernel.source_file, file.kernel.header_file})]
    gaps += [Gap("", what) for what in untried(file, tried)]
    gaps = list(dict.fromkeys(gaps))  # the same text twice on a line
    reasons = file.description.unreachable
    return Coverage(
        file.name,
        places,
        ranges(tried),
        [gap for gap in gaps if gap.key not in reasons],
        [(gap, reasons[gap.key]) for gap in gaps if gap.key in reasons],
        [key for key in reasons if key not in {gap.key for gap in gaps}],
        list(unmeasured),
    )


def _unreached(places: Mapping[Place, Counts], own: set[str]) -> Iterator[Gap]:
    """Gaps in the order of the source. Left out are functions of included files that the kernel does not call, and
    what lies behind something that is named itself."""
    numbered = list(places.items())
    called = True
    for place, counts in numbered:
        if place.kind == "function":
            called = bool(counts[0])
            if not called and place.file in own:
                yield Gap(f"{place.file}:{place.line}", f"{place.text}: never called")
        elif called and (any(counts) or all(_is_entered(*numbered[outer]) for outer in place.outer)):
            what = _missing(place, counts)
            if what is not None:
                yield Gap(f"{place.file}:{place.line}", what)


def _is_entered(place: Place, counts: Counts) -> bool:
    """Whether every way that leads on from a place was taken: both sides of a condition, a round of a loop."""
    if place.kind == "condition":
        return all(counts[:2])
    return any(counts[1:]) if place.kind in ("loop", "do") else bool(counts[0])


def _missing(place: Place, counts: Counts) -> str | None:
    text = f"loop {place.text}" if place.kind in ("loop", "do") else place.text
    if not any(counts):
        return f"{text}: never reached"
    if place.kind == "condition":
        sides = [side for side, count in zip(_SIDES, counts, strict=False) if not count]
        return f"{text}: never {sides[0]}" if sides else None
    if place.kind in ("loop", "do") and any(counts[:4]):  # else the number of rounds is a constant
        first = place.kind == "do"
        never = [rounds for rounds, count in zip(_ROUNDS[first:], counts[first:4], strict=True) if not count]
        *others, last = never or [""]
        rounds = f"{', '.join(others)} or {last}" if others else last
        return f"{text}: never {rounds} round{'' if rounds == '1' else 's'}" if never else None
    return None
