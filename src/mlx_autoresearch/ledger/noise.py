"""The noise of one run: how much val_bpb varies between trials of one configuration, estimated from a ledger.

Decisions and pages use this one estimate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist, median_low, variance

from .ledger import Record
from .seeds import Seeds

_RECENT_DF = 12  # the noise drifts as the model changes: older measurements than these do not count
_DISTURBED = 6.0  # standard deviations above a configuration's other trials


@dataclass(frozen=True)
class Noise:
    """Standard deviation of val_bpb over trials of one configuration, and that estimate's degrees of freedom."""

    sd: float
    df: int

    @classmethod
    def pooled(cls, groups: Iterable[Sequence[float]]) -> Noise:
        """From groups of val_bpb, oldest first; each group is one configuration, measured once or several times.

        Give the groups of the baseline, of every kept experiment and of every remeasurement. Leave out discarded
        experiments, which may be unstable. Having been kept for a low mean does not bias a group's variance. Only
        the latest groups that have 12 degrees of freedom together count, without disturbed trials. Raises ValueError
        when all have one value.
        """
        recent: list[Sequence[float]] = []
        for group in reversed([group for group in groups if len(group) > 1]):
            recent.append(group)
            if sum(map(len, recent)) - len(recent) >= _RECENT_DF:
                break
        if not recent:
            raise ValueError("[Noise.pooled] expected a configuration measured at two seeds or more, got none")
        # The median over pairs gives the noise's size even where a minority of the trials was disturbed.
        apart = [abs(a - b) / math.sqrt(2) for group in recent for a, b in combinations(group, 2)]
        typical = median_low(apart) / NormalDist().inv_cdf(0.75)
        recent = [rest for group in recent if len(rest := undisturbed(group, typical or math.inf)) > 1]
        df = sum(map(len, recent)) - len(recent)
        return cls(math.sqrt(sum(variance(group) * (len(group) - 1) for group in recent) / df), df)

    @classmethod
    def of(cls, records: Iterable[Record], seeds: Seeds | None) -> Noise | None:
        """From a ledger's kept records, each window of seeds by itself; None when nothing was measured twice.

        seeds: the search's; None for a sweep, where a record is a group.
        """
        groups: dict[tuple[int, str, int], list[float]] = {}
        for record in records:
            if record.status == "keep":
                for seed, value in record.values.items():
                    window = seeds.window_of(seed) if seeds else 0
                    groups.setdefault((record.number, record.event, window), []).append(value)
        return cls.pooled(groups.values()) if any(len(group) > 1 for group in groups.values()) else None


def undisturbed(values: Sequence[float], sd: float) -> list[float]:
    """Trials of one configuration without those more than 6 `sd` above its (lower) median."""
    highest = median_low(values) + _DISTURBED * sd
    return [value for value in values if value <= highest]
