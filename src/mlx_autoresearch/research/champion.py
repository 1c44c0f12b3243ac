"""The champion: the best so far, its values at fresh seeds, and the noise of one run.

Seeds come in windows (ledger/seeds.py). The baseline has the first one, `refresh` takes the next one each time, and
candidates are measured at the seeds of the champion's latest.

What made it the best was partly luck. Where its fresh values leave it open whether it is better than the best before
it, both are run in turns at new seeds, and it stays only if these runs alone would keep it. Otherwise, and where its
own fault ends two of its runs in a row, the one before is the best again, which is looked at in the same way. An
experiment that was demoted does not come back.
"""

from __future__ import annotations

from dataclasses import replace

from mlx_autoresearch.errors import RunFailed
from mlx_autoresearch.ledger.ledger import LONGEST_REASON, Record, Trial, measured
from mlx_autoresearch.ledger.noise import Noise
from mlx_autoresearch.ledger.standing import earned_of, fresh_trials, fresh_values
from mlx_autoresearch.plain_text import one_line
from mlx_autoresearch.trials.clock import NOBODYS
from mlx_autoresearch.trials.trial import TrialFailed

from .candidate import Candidate, candidate_at
from .decision import Judge, Keep
from .home import Search
from .measure import measure
from .turns import in_turns
from .view import View


class Champion:
    """What candidates are compared with. candidate: its commit, read from git once."""

    def __init__(self, search: Search, view: View):
        self._search, self._view = search, view
        self._seeds = search.config.seeds
        self.candidate = candidate_at(search, search.workspace.best)
        self._failures: list[TrialFailed] = []  # of its latest runs: its own, none that the machine is to blame for

    @property
    def record(self) -> Record:
        """What made it the best."""
        return self._search.best

    def crown(self, candidate: Candidate) -> None:
        """A kept candidate is the champion from now on; its record is in the ledger."""
        self.candidate, self._failures = candidate, []

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
            seeds = self.new_window()
            self.measure_again(seeds[: self._seeds.best])
            self._once_more(seeds[0] + self._seeds.best)
            self._fall_back_where_exposed()

    def extend(self) -> None:
        """Measure the best at one more seed of its latest window."""
        paired, _ = self.values()
        window = self._seeds.window(self._seeds.window_of(next(iter(paired))))
        self.measure_again([next(seed for seed in window if seed not in paired)])

    def new_window(self) -> list[int]:
        """Seeds that nothing was measured at."""
        latest = max(self._seeds.window_of(t.seed) for r in self._search.ledger.records() for t in r.trials)
        return self._seeds.window(1 + latest)

    def trials(self) -> dict[int, Trial]:
        """The best's fresh trials by seed; see `fresh_trials`."""
        return fresh_trials(self._search.ledger.records(), self.record)

    def values(self) -> tuple[dict[int, float], list[float]]:
        """The best's fresh val_bpb: by seed for its latest window, and a list for earlier ones.

        While there are none, the values that made it the best stand in, which makes a keep harder.
        """
        values = {seed: trial.val_bpb for seed, trial in self.trials().items()}
        window = max(map(self._seeds.window_of, values))
        paired = {seed: v for seed, v in values.items() if self._seeds.window_of(seed) == window}
        return paired, [v for seed, v in values.items() if seed not in paired]

    def earned_values(self) -> list[float] | None:
        """Fresh val_bpb of the last best that was kept for a gain; None where that is this one."""
        records = self._search.ledger.records()
        earned = earned_of(records)
        if earned is None or earned.number == self.record.number:
            return None
        return list(fresh_values(records, earned).values())

    def judge(self) -> Judge:
        """With the noise as it is known now."""
        config = self._search.config
        return Judge(self.noise(), self._seeds.most, **config.decision.model_dump())

    def noise(self) -> Noise:
        """From all that was measured of the baseline and of kept experiments."""
        if self._search.config.decision.greedy:
            return Noise(0.0, 1)
        noise = Noise.of(self._search.ledger.records(), self._seeds)
        assert noise is not None, "the baseline has two seeds or more"
        return noise

    def measure_again(self, seeds: list[int]) -> list[Trial]:
        """Train the best again at `seeds`, and write it down; its trials up to the first that failed."""
        return self._measure_again(self.record, self.candidate, seeds)

    def _measure_again(self, record: Record, candidate: Candidate, seeds: list[int]) -> list[Trial]:
        search = self._search
        started = search.seconds()
        trials: list[Trial] = []
        reason = f"seeds {', '.join(map(str, seeds))}"
        what = "the best" if record == self.record else "the best before"
        for i, seed in enumerate(seeds, 1):
            self._view.doing(f"{what} again, run {i} of {len(seeds)}")
            try:
                trials.append(measure(search, candidate, seed, search.folder(record.number), self._view))
            except TrialFailed as failure:  # the ledger says so; what was measured before it counts
                reason = f"seed {seed}: {failure}"
                if record == self.record and failure.kind not in NOBODYS:
                    self._failures.append(failure)
                break
        if trials and record == self.record:
            self._failures = []
        again = replace(
            record,
            event="remeasure",
            reason=one_line(reason, LONGEST_REASON),
            **measured(trials, search.seconds() - started),
        )
        search.ledger.append(again)
        self._view.decided(again, self.record)
        return trials

    def _once_more(self, seed: int) -> None:
        """Run a best that has just failed by its own fault at another seed."""
        if self._failures:
            self.measure_again([seed])

    def _fall_back_where_exposed(self) -> None:
        """Demote the best, and then the one before it, while measurements show that it is none."""
        while (before := self._before()) is not None:
            records, judge, best = self._search.ledger.records(), self.judge(), self.record
            if len(self._failures) > 1:
                reason = f"no longer the best: it fails when it is measured again: {self._failures[-1]}"
                self._demote(best, before, candidate_at(self._search, before.commit), one_line(reason, LONGEST_REASON))
                continue
            now, then = (list(fresh_values(records, record).values()) for record in (best, before))
            if not judge.doubts(now, then, judge.margin if best.simpler else 0.0):
                return
            rival = candidate_at(self._search, before.commit)

            def best_at(seed: int) -> float | None:
                return next((t.val_bpb for t in self.measure_again([seed])), None)

            def rival_at(seed: int, before: Record = before, rival: Candidate = rival) -> float | None:
                return next((t.val_bpb for t in self._measure_again(before, rival, [seed])), None)

            seeds = self.new_window()
            action = in_turns(judge, seeds, best_at, rival_at, simpler=best.simpler)
            if action is None:
                self._once_more(seeds[0] + judge.max_seeds)
            if len(self._failures) > 1:
                continue
            if action is None or isinstance(action, Keep):
                return
            reason = f"no longer the best: in turns with experiment {before.number} at new seeds, {action.reason}"
            self._demote(best, before, rival, one_line(reason, LONGEST_REASON))

    def _before(self) -> Record | None:
        """The best before this one; None for the baseline."""
        best = self.record
        kept = (r for r in self._search.ledger.records() if r.decides and r.status == "keep")
        return None if best.event == "baseline" else next((r for r in kept if r.commit == best.parent), None)

    def _demote(self, best: Record, before: Record, rival: Candidate, reason: str) -> None:
        demoted = replace(
            best, event="demote", parent=before.commit, status="discard", reason=reason, **measured([], 0.0)
        )
        self._search.ledger.append(demoted)
        self.candidate, self._failures = rival, []
        self._search.disks.surely(lambda: self._search.workspace.keep(before.commit))
        self._view.decided(demoted, before)
