"""The loop: a research that is started or opened, and then runs one experiment after the other."""

from __future__ import annotations

from pathlib import Path

from mlx_autoresearch.trials.trial import run_trial

from .champion import Reference
from .experiment import Experiment
from .guard.integrity import check_same, check_since_start, trusted_state
from .home import Storage
from .measure import Harness, Runner
from .proposers import make_proposer
from .proposers.base import Proposer
from .settings import ResearchConfig
from .view import View


class Research:
    """One research, opened for running; `start` makes a new one, `open` finds an old one."""

    def __init__(self, storage: Storage, *, run: Runner = run_trial):
        self._storage, self._run = storage, run
        self.home, self.config = storage.home, storage.config
        self.ledger, self.workspace = storage.ledger, storage.workspace
        self.proposer: Proposer = make_proposer(storage.config)

    @classmethod
    def start(cls, config: ResearchConfig, parent: Path, repository: Path, *, run: Runner = run_trial) -> Research:
        """A new research in `parent`/<tag>: its folder, branch and worktree. Raises UserError when there is one."""
        return cls(Storage.create(config, parent, repository), run=run)

    @classmethod
    def open(cls, home: Path, *, run: Runner = run_trial) -> Research:
        """An existing research. Raises UserError when `home` holds none."""
        return cls(Storage.open(home), run=run)

    def go(self, view: View, *, experiments: int | None = None) -> None:
        """Run to the end: until `experiments` more, the configuration's own limits, or a proposer that has no more.

        Raises UserError when another process runs this research or something it relies on has changed, RunFailed when
        the starting point cannot be trained.
        """
        storage = self._storage
        harness = Harness(storage, self._run, view)
        reference = Reference(storage, harness, view)
        with storage.locked():
            storage.recover()
            trusted = check_since_start(storage)
            if not self.ledger.records():
                reference.measure_baseline()
            for record in self.ledger.records():
                self.proposer.told(record)
            done = 0
            while not self._finished(done, experiments):
                check_same(trusted, trusted_state(self.config))
                reference.refresh()
                record = Experiment(storage, harness, reference, self.proposer, view).conduct()
                if record is None:
                    view.say("the proposer has nothing more to propose")
                    break
                self.proposer.told(record)
                done += 1

    def _finished(self, done: int, experiments: int | None) -> bool:
        records = self.ledger.records()
        total = sum(r.event == "experiment" for r in records)
        spent = sum(r.seconds for r in records)
        config = self.config
        return (
            (experiments is not None and done >= experiments)
            or (config.experiments is not None and total >= config.experiments)
            or (config.hours is not None and spent >= 3600 * config.hours)
        )
