"""The champion: the best so far, its values at fresh seeds, and the noise of one run.

Seeds come in windows (ledger/seeds.py). The baseline has the first one, `refresh` takes the next one each time, and
candidates are measured at the seeds of the champion's latest.
"""

from __future__ import annotations

from dataclasses import replace

from mlx_autoresearch.errors import RunFailed
from mlx_autoresearch.ledger.ledger import LONGEST_REASON, Record, Trial, measured
from mlx_autoresearch.ledger.noise import Noise
from mlx_autoresearch.plain_text import one_line
from mlx_autoresearch.trials.trial import TrialFailed

from .candidate import Candidate, best_candidate
from .home import Search
from .measure import measure
from .view import View


class Champion:
    """What candidates are compared with. candidate: its commit, read from git once."""

    def __init__(self, search: Search, view: View):
        self._search, self._view = search, view
        self._seeds = search.config.seeds
        self.candidate = best_candidate(search)

    @property
    def record(self) -> Record:
        """What made it the best."""
        return self._search.best

    def crown(self, candidate: Candidate) -> None:
        """A kept candidate is the champion from now on; its record is in the ledger."""
        self.candidate = candidate

    def measure_baseline(self) -> None:
        """Measure the starting point at several seeds, to learn this machine's noise. Raises RunFailed."""
        search, commit = self._search, self.candidate.commit
        seeds = self._seeds.window(0)[: 1 if search.config.decision.greedy else self._seeds.baseline]
        started = search.seconds()
        trials = []
        for i, seed in enumerate(seeds, 1):
            self._view.doing(f"baseline, run {i} of {len(seeds)}")
            try:
                trials.append(measure(search, self.candidate, seed, search.folder(0), self._view))
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
            **measured(trials, search.seconds() - started),
        )
        search.ledger.append(baseline)
        self._view.decided(baseline, baseline)

    def refresh(self) -> None:
        """Measure the best at new seeds when it has just become that, and every so often."""
        config = self._search.config
        if config.decision.greedy:
            return
        best = self.record
        records = self._search.ledger.records()
        own = [i for i, r in enumerate(records) if r.commit == best.commit]
        fresh = any(records[i].event in ("remeasure", "baseline") for i in own)
        since = sum(r.event == "experiment" for r in records[own[-1] + 1 :])
        if not fresh or since >= config.remeasure_every:
            window = 1 + max(self._seeds.window_of(t.seed) for r in records for t in r.trials)
            self._remeasure(self._seeds.window(window)[: self._seeds.best])

    def extend(self) -> None:
        """Measure the best at one more seed of its latest window."""
        paired, _ = self.values()
        window = self._seeds.window(self._seeds.window_of(next(iter(paired))))
        self._remeasure([next(seed for seed in window if seed not in paired)])

    def values(self) -> tuple[dict[int, float], list[float]]:
        """The best's fresh val_bpb: by seed for its latest window, and a list for earlier ones.

        Fresh values were measured after the experiment was kept (and all values of the baseline): they carry no
        selection bias. Without any, the values that made it the best stand in, which makes a keep harder.
        """
        best = self.record
        records = [r for r in self._search.ledger.records() if r.commit == best.commit]
        fresh = [r for r in records if r.event in ("remeasure", "baseline")]
        values = {seed: value for r in fresh for seed, value in r.values.items()} or best.values
        window = max(map(self._seeds.window_of, values))
        paired = {seed: v for seed, v in values.items() if self._seeds.window_of(seed) == window}
        return paired, [v for seed, v in values.items() if seed not in paired]

    def noise(self) -> Noise:
        """From all that was measured of the baseline and of kept experiments."""
        if self._search.config.decision.greedy:
            return Noise(0.0, 1)
        noise = Noise.of(self._search.ledger.records(), self._seeds)
        assert noise is not None, "the baseline has two seeds or more"
        return noise

    def _remeasure(self, seeds: list[int]) -> None:
        """Train the best again at `seeds` and write it down."""
        best, search = self.record, self._search
        started = search.seconds()
        trials: list[Trial] = []
        reason = f"seeds {', '.join(map(str, seeds))}"
        for i, seed in enumerate(seeds, 1):
            self._view.doing(f"the best again, run {i} of {len(seeds)}")
            try:
                trials.append(measure(search, self.candidate, seed, search.folder(best.number), self._view))
            except TrialFailed as failure:  # the ledger says so; what was measured before it counts
                reason = f"seed {seed}: {failure}"
                break
        again = replace(
            best,
            event="remeasure",
            reason=one_line(reason, LONGEST_REASON),
            **measured(trials, search.seconds() - started),
        )
        search.ledger.append(again)
        self._view.decided(again, best)
