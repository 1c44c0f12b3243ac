"""What follows from a ledger: the best so far, this machine's noise, the gain of each kind of change, the cost."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlx_autoresearch.ledger.files import DIFF, HOLDOUT, LEDGER, experiment_folder
from mlx_autoresearch.ledger.ledger import Ledger, Record, best_of, decided
from mlx_autoresearch.ledger.noise import Noise
from mlx_autoresearch.ledger.seeds import Seeds
from mlx_autoresearch.ledger.standing import Improvement, improvement, level
from mlx_autoresearch.training.files import CONFIG, METRICS

STATUS_NAMES = {
    "keep": "kept",
    "discard": "discarded",
    "crash": "crashed",
    "timeout": "timed out",
    "rejected": "rejected",
}
FAILURES = ("crash", "timeout", "rejected")
_SHOWN = 0.9  # of the results, on the scale of a plot
_BEYOND = 2.0  # but no further above the start than this many times the way from it to the best


@dataclass(frozen=True)
class Kind:
    """One sort of change: how often it was tried and kept, and by how many bits per byte it lowered the best."""

    name: str
    tried: int
    kept: int
    gain: float


@dataclass(frozen=True)
class Step:
    """From experiment `number` on, the best is `val_bpb`."""

    number: int
    val_bpb: float
    record: Record


@dataclass(frozen=True)
class History:
    """The records of a ledger in the folder `home`, and what follows from them."""

    home: Path
    records: list[Record]

    @classmethod
    def read(cls, home: Path) -> History:
        """The ledger of a search or a sweep."""
        return cls(home, Ledger(home / LEDGER).records())

    @cached_property
    def decided(self) -> list[Record]:
        """The baseline, where there is one, and the experiments; one that was demoted counts as discarded."""
        return decided(self.records)

    @property
    def difference(self) -> str:
        """In what its numbers were measured otherwise than new ones would be: `Methods.difference`."""
        return self.records[-1].methods.difference() if self.records else ""

    @cached_property
    def values(self) -> list[float]:
        """The val_bpb of each decided record that has one."""
        return [r.val_bpb for r in self.decided if r.val_bpb is not None]

    @cached_property
    def kept(self) -> list[Record]:
        """The records that were kept, the baseline first."""
        return [r for r in self.decided if r.status == "keep" and r.val_bpb is not None]

    @property
    def baseline(self) -> Record | None:
        return next((r for r in self.decided if r.event == "baseline"), None)

    @property
    def best(self) -> Record | None:
        best = best_of(self.records)
        return next((r for r in self.kept if best is not None and r.number == best.number), None)

    @cached_property
    def improvement(self) -> Improvement | None:
        """From the starting point to the best: the one number of status, page and picture."""
        return improvement(self.records)

    @cached_property
    def steps(self) -> list[Step]:
        """The staircase: the best val_bpb after each record that changed it. A remeasurement corrects it, and a
        demotion takes it back to the best before."""
        steps, last = [], 0
        for end, record in enumerate(self.records, 1):
            known = self.records[:end]
            if record.decides:
                last = record.number
            if (record.decides and record.status == "keep") or record.event != "experiment":
                best = best_of(known)
                if best is not None and (value := level(known, best)) is not None:
                    steps.append(Step(last, value, record))
        return steps

    @cached_property
    def gains(self) -> dict[int, float]:
        """By how many bits per byte each kept experiment lowered the best val_bpb, by its number."""
        gains: dict[int, float] = {}
        for before, after in zip(self.steps, self.steps[1:], strict=False):
            if after.record.event == "experiment":
                gains[after.record.number] = before.val_bpb - after.val_bpb
        return gains

    @cached_property
    def sigma(self) -> float | None:
        """Standard deviation of one run over seeds, as decisions estimate it; None where nothing ran with several."""
        noise = Noise.of(self.records, Seeds.of(self.home))
        return noise.sd if noise else None

    @cached_property
    def counts(self) -> Counter[str]:
        """Experiments, the baseline left out, by status."""
        return Counter(r.status for r in self.decided if r.event != "baseline")

    @cached_property
    def kinds(self) -> list[Kind]:
        """The kinds of change with their gains, the largest gain first."""
        experiments = [r for r in self.decided if r.event == "experiment"]
        kinds = []
        for name in dict.fromkeys(r.kind for r in experiments):
            mine = [r for r in experiments if r.kind == name]
            kept = [r for r in mine if r.status == "keep"]
            kinds.append(Kind(name, len(mine), len(kept), sum(self.gains.get(r.number, 0.0) for r in kept)))
        return sorted(kinds, key=lambda k: (-k.gain, -k.kept, -k.tried))

    @cached_property
    def cost(self) -> dict[str, float]:
        """Totals: runs; tokens trained on; hours of wall-clock time; training_hours, of the training steps alone."""
        trials = [t for r in self.records for t in r.trials]
        return {
            "runs": len(trials),
            "tokens": sum(t.tokens for t in trials),
            "hours": sum(r.seconds for r in self.records) / 3600,
            "training_hours": sum(t.training_seconds for t in trials) / 3600,
        }

    def folder(self, record: Record) -> Path:
        """Where an experiment's diff, output and runs are kept."""
        return experiment_folder(self.home, record.number)

    def diff(self, record: Record) -> str:
        """The change as a patch; "" where none was kept."""
        return _read(self.folder(record) / DIFF)

    def config(self, record: Record) -> str:
        """The resolved configuration of an experiment's first run, YAML; "" once it has been deleted."""
        return next((text for t in record.trials if t.run and (text := _read(self.home / t.run / CONFIG))), "")

    @property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest val_bpb that plots show: most of what was measured, and all of the staircase.

        A few very bad experiments must not flatten all others, and no rejected one decides what is shown.
        """
        steps = [s.val_bpb for s in self.steps]
        values = sorted(r.val_bpb for r in self.decided if r.val_bpb is not None and r.status in ("keep", "discard"))
        values = values or steps or sorted(self.values) or [1.0]
        low = min(values[0], *steps) if steps else values[0]
        top = max(steps, default=values[-1])
        most = values[min(len(values) - 1, int(_SHOWN * len(values)))]
        high = min(max(most, top), top + _BEYOND * max(top - low, 0.02 * abs(top)))
        return low, max(high, 1.001 * low)

    def curve(self, record: Record, points: int = 120) -> list[tuple[float, float]]:
        """(progress, smoothed training loss in nats a token) of an experiment's first run, thinned to `points`."""
        for trial in record.trials:
            if trial.run and (curve := list(_losses(_read(self.home / trial.run / METRICS)))):
                stride = max(1, math.ceil(len(curve) / points))
                return curve[::-stride][::-1]
        return []

    @cached_property
    def holdout(self) -> dict[str, Any] | None:
        """What `research best` measured on the holdout, if it did."""
        with suppress(ValueError):
            values = json.loads(_read(self.home / HOLDOUT))
            return values if isinstance(values, dict) else None
        return None


def _losses(metrics: str) -> Iterator[tuple[float, float]]:
    for line in metrics.splitlines():
        with suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):  # an untrusted run wrote it
            record = json.loads(line)
            point = float(record["progress"]), float(record["smooth_loss"])
            if all(map(math.isfinite, point)):
                yield point


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
