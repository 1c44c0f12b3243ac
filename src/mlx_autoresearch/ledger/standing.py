"""Where a search stands, from its records alone: which experiment is the best, what it measures, what it has gained.

Status, page, picture and proposers take their numbers from here, so that they agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from .ledger import Record, Trial, best_of


def earned_of(records: Sequence[Record]) -> Record | None:
    """The best, or where that was kept for being simpler, the last one before it that was kept for a gain."""
    kept = {r.commit: r for r in records if r.decides and r.status == "keep"}
    best = best_of(records)
    while best is not None and best.simpler:
        best = kept[best.parent]
    return best


def fresh_trials(records: Sequence[Record], of: Record) -> dict[int, Trial]:
    """Trials by seed of a kept record that were made after it was kept, and all of the baseline's.

    They carry no selection bias. Without any, the trials that made it the best stand in.
    """
    fresh = [r for r in records if r.number == of.number and r.event in ("remeasure", "baseline")]
    return {t.seed: t for r in fresh for t in r.trials if t.seed in r.values} or {
        t.seed: t for t in of.trials if t.seed in of.values
    }


def fresh_values(records: Sequence[Record], of: Record) -> dict[int, float]:
    """val_bpb of the `fresh_trials`, by seed."""
    return {seed: trial.val_bpb for seed, trial in fresh_trials(records, of).items()}


def level(records: Sequence[Record], of: Record) -> float | None:
    """val_bpb of a kept record: the mean of its fresh values, where it was measured afresh."""
    again = [r.val_bpb for r in records if r.number == of.number and r.event == "remeasure" and r.val_bpb is not None]
    values = fresh_values(records, of).values()
    return of.val_bpb if not again else fmean(values) if values else again[-1]


@dataclass(frozen=True)
class Improvement:
    """From the starting point to the best, bits per byte, both by `level`."""

    start: float
    best: float

    @property
    def change(self) -> float:
        """In percent; negative is better."""
        return 100 * (self.best - self.start) / self.start


def improvement(records: Sequence[Record]) -> Improvement | None:
    """What a search has gained so far; None before anything was kept. A ledger without a baseline starts at its first
    kept record."""
    best = best_of(records)
    start = next((r for r in records if r.decides and r.status == "keep"), None)
    if best is None or start is None:
        return None
    at_start, now = level(records, start), level(records, best)
    return None if at_start is None or now is None else Improvement(at_start, now)


def gain_of(records: Sequence[Record], experiment: Record) -> float | None:
    """By how many bits per byte an experiment measured better than its best did up to then; None for no result."""
    before = records[: records.index(experiment)]
    parent = next((r for r in before if r.decides and r.commit == experiment.parent), None)
    at_that_time = None if parent is None else level(before, parent)
    return None if at_that_time is None or experiment.val_bpb is None else at_that_time - experiment.val_bpb


def near_misses(records: Sequence[Record]) -> list[Record]:
    """Discarded experiments that measured better than the best of their time, though within noise, and against
    another best than now; the largest gain first.
    """
    best = best_of(records)
    misses = [
        (gain, r)
        for r in records
        if r.event == "experiment" and r.status == "discard" and best is not None and r.parent != best.commit
        if (gain := gain_of(records, r)) is not None and gain > 0
    ]
    return [r for _, r in sorted(misses, key=lambda miss: -miss[0])]
