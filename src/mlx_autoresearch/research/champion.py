"""What a candidate is compared with: the best, measured at fresh seeds, and the noise of one run.

Seeds come in windows (`config.Seeds`). The baseline has the first one, `refresh` takes the next one each time, and
candidates run at the seeds of the best's latest.
"""

from __future__ import annotations

import time
from dataclasses import replace

from mlx_autoresearch.errors import RunFailed
from mlx_autoresearch.ledger.ledger import Record, Trial
from mlx_autoresearch.plain_text import one_line
from mlx_autoresearch.trials.trial import TrialFailed

from .decision import Noise
from .home import Storage
from .measure import Harness, measured
from .view import View


class Reference:
    """The measurements of the best, made when they are wanted and read from the ledger."""

    def __init__(self, storage: Storage, harness: Harness, view: View):
        self._storage, self._harness, self._view = storage, harness, view
        self._seeds = storage.config.seeds

    def measure_baseline(self) -> None:
        """Measure the starting point at several seeds, to learn this machine's noise. Raises RunFailed."""
        storage = self._storage
        seeds = self._seeds.window(0)[: 1 if storage.config.decision.greedy else self._seeds.baseline]
        commit = storage.workspace.best
        started = time.monotonic()
        trials = []
        with self._harness.trials_of(commit, storage.folder(0)) as trial_at:
            for i, seed in enumerate(seeds, 1):
                self._view.doing(f"baseline, run {i} of {len(seeds)}")
                try:
                    trials.append(trial_at(seed))
                except TrialFailed as failure:
                    raise RunFailed(f"the starting point cannot be measured: {failure}") from None
        baseline = Record(
            number=0,
            event="baseline",
            commit=commit,
            parent=commit,
            hypothesis="the starting point",
            proposer="start",
            kind="baseline",
            files=[],
            insertions=0,
            deletions=0,
            overrides={},
            status="keep",
            reason=f"{len(trials)} seeds",
            **measured(trials, started),
        )
        storage.ledger.append(baseline)
        self._view.decided(baseline, baseline)

    def refresh(self) -> None:
        """Measure the best at new seeds when it has just become that, and every so often."""
        config = self._storage.config
        if config.decision.greedy:
            return
        best = self._storage.best
        records = self._storage.ledger.records()
        own = [i for i, r in enumerate(records) if r.commit == best.commit]
        fresh = any(records[i].event in ("remeasure", "baseline") for i in own)
        since = sum(r.event == "experiment" for r in records[own[-1] + 1 :])
        if not fresh or since >= config.remeasure_every:
            window = 1 + max(self._window_of(t.seed) for r in records for t in r.trials)
            self._remeasure(self._seeds.window(window)[: self._seeds.best])

    def extend(self) -> None:
        """Measure the best at one more seed of its latest window."""
        paired, _ = self.values()
        window = self._seeds.window(self._window_of(next(iter(paired))))
        self._remeasure([next(seed for seed in window if seed not in paired)])

    def values(self) -> tuple[dict[int, float], list[float]]:
        """The best's fresh val_bpb: of its latest window by seed, and of earlier ones.

        Fresh is what did not make it the best: what was measured afterwards, and all of the starting point's. Without
        any, what made it the best stands in, which makes a keep harder.
        """
        best = self._storage.best
        records = [r for r in self._storage.ledger.records() if r.commit == best.commit]
        fresh = [r for r in records if r.event in ("remeasure", "baseline")]
        if not any(r.trials for r in fresh):
            fresh = [best]
        values = {t.seed: t.val_bpb for r in fresh for t in r.trials if t.val_bpb is not None}
        window = max(map(self._window_of, values))
        paired = {seed: v for seed, v in values.items() if self._window_of(seed) == window}
        return paired, [v for seed, v in values.items() if seed not in paired]

    def noise(self) -> Noise:
        """From all that was measured of the baseline and of kept experiments, each window by itself."""
        if self._storage.config.decision.greedy:
            return Noise(0.0, 1)
        groups: dict[tuple, list[float]] = {}
        for r in self._storage.ledger.records():
            if r.status == "keep":
                for t in r.trials:
                    if t.val_bpb is not None:
                        groups.setdefault((r.commit, r.event, self._window_of(t.seed)), []).append(t.val_bpb)
        return Noise.pooled(groups.values())

    def _remeasure(self, seeds: list[int]) -> None:
        """Run the best again at `seeds` and write it down."""
        best = self._storage.best
        started = time.monotonic()
        trials: list[Trial] = []
        reason = f"seeds {', '.join(map(str, seeds))}"
        with self._harness.trials_of(best.commit, self._storage.folder(best.number)) as trial_at:
            for i, seed in enumerate(seeds, 1):
                self._view.doing(f"the best again, run {i} of {len(seeds)}")
                try:
                    trials.append(trial_at(seed))
                except TrialFailed as failure:  # it says so in the ledger; what was measured before goes on to count
                    reason = f"seed {seed}: {failure}"
                    break
        again = replace(best, event="remeasure", reason=one_line(reason, 500), **measured(trials, started))
        self._storage.ledger.append(again)
        self._view.decided(again, best)

    def _window_of(self, seed: int) -> int:
        return (seed - self._seeds.first) // self._seeds.size
