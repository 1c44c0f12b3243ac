"""One experiment: propose, commit, guard, measure, decide, write down."""

from __future__ import annotations

import shutil
import time
from typing import Any

from mlx_autoresearch.config.keys import differing
from mlx_autoresearch.config.load import settings_of, with_settings
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.ledger.ledger import Record, Status, Trial
from mlx_autoresearch.plain_text import one_line, printable
from mlx_autoresearch.trials.trial import TrialFailed, status_of

from .champion import Reference
from .decision import Discard, Judge, Keep
from .guard import rules
from .guard.integrity import surroundings
from .home import Storage
from .measure import Harness, measured
from .proposers.base import Context, Proposal, ProposalFailed, Proposer
from .view import View
from .workspace import EXPERIMENT, NO_CHANGE


class _Ended(Exception):
    """The experiment ends before its first trial; the message is the record's reason."""

    def __init__(self, status: Status, reason: str):
        super().__init__(reason)
        self.status: Status = status


class Experiment:
    """The next experiment of a research; its steps fill in, one after the other, what its record will say."""

    def __init__(self, storage: Storage, harness: Harness, reference: Reference, proposer: Proposer, view: View):
        self._storage, self._harness, self._reference = storage, harness, reference
        self._proposer, self._view = proposer, view
        self._workspace = storage.workspace
        self._best = storage.best
        self._number = storage.next_number()
        self._folder = storage.folder(self._number)
        self._commit = self._best.commit
        self._change = NO_CHANGE
        self._hypothesis, self._kind = "no proposal", "other"
        self._overrides: dict[str, Any] = {}
        self._trials: list[Trial] = []

    def conduct(self) -> Record | None:
        """Make, measure and record it; None when the proposer has no more."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._workspace.reset()
        started = time.monotonic()
        try:
            self._view.doing(f"experiment {self._number}: waiting for {self._proposer.name}")
            proposal = self._propose()
            if proposal is None:
                return None
            notes = self._realise(proposal)
            self._check()
            self._view.doing(f"experiment {self._number}: {self._hypothesis}")
            action = self._measure()
            status: Status = "keep" if isinstance(action, Keep) else "discard"
            reason = "; ".join([action.reason, *notes])
        except _Ended as ended:
            status, reason = ended.status, str(ended)
        except TrialFailed as failure:
            status, reason = status_of(failure.kind), f"{failure.kind}: {one_line(failure.detail)}"
            (self._folder / "output.txt").write_text(failure.detail, encoding="utf-8")
        return self._record(status, reason, started)

    def _propose(self) -> Proposal | None:
        """Ask the proposer. Raises _Ended when it fails, or has touched anything outside the worktree."""
        context = Context(
            number=self._number,
            best=self._best,
            history=self._storage.ledger.records(),
            worktree=self._workspace.path,
            folder=self._folder,
            config=self._storage.config_at(self._best.commit),
            allowed=list(rules.EDITABLE),
            frozen=[*(f"{section}.*" for section in rules.FROZEN_SECTIONS), *rules.FROZEN_KEYS, "train.seed"],
            mark=self._storage.mark,
        )
        before = surroundings(self._storage)
        failed: ProposalFailed | None = None
        proposal = None
        try:
            proposal = self._proposer.propose(context)
            if proposal is not None:
                self._hypothesis, self._kind = one_line(proposal.hypothesis), one_line(proposal.kind, 40)
        except ProposalFailed as failure:
            failed = failure
        if changed := differing(before, surroundings(self._storage)):
            raise _Ended("rejected", f"guard: {changed[0]} changed outside the worktree")
        if failed is not None:
            statuses: dict[str, Status] = {"timeout": "timeout", "no change": "rejected", "guard": "rejected"}
            raise _Ended(statuses.get(failed.kind, "crash"), f"{failed.kind}: {one_line(str(failed))}")
        return proposal

    def _realise(self, proposal: Proposal) -> list[str]:
        """Turn a proposal into a commit; returns notes for the reason. Raises _Ended."""
        if proposal.patch is not None and (wrong := self._workspace.apply(proposal.patch)) is not None:
            raise _Ended("rejected", f"the patch does not apply: {one_line(wrong)}")
        file = self._workspace.path / EXPERIMENT
        start = self._storage.config_at(self._best.commit)
        notes = []
        try:
            if file.is_symlink() or not file.resolve().is_relative_to(self._workspace.path.resolve()):
                raise UserError(f"{EXPERIMENT} is not a regular file")
            text = file.read_bytes() if file.is_file() else None
            config = rules.read_config(text)
            if proposal.overrides:
                config = with_settings(config, proposal.overrides, "the proposal")
            if config.train.seed != start.train.seed:
                notes.append(f"train.seed={config.train.seed} was put back")
                seed = {"train": config.train.model_copy(update={"seed": start.train.seed})}
                config = config.model_copy(update=seed)
            if notes or proposal.overrides:
                file.write_text(config.to_yaml(), encoding="utf-8")
        except UserError as error:
            self._make_commit()
            raise _Ended("rejected", str(error)) from None
        self._make_commit()
        if not self._change.status:
            raise _Ended("rejected", "; ".join(["no change", *notes]))
        return notes

    def _make_commit(self) -> None:
        self._commit = self._workspace.commit(self._number, self._hypothesis, self._best.commit)
        self._change = self._workspace.change(self._best.commit, self._commit)

    def _check(self) -> None:
        """The guard's static part, and the settings that changed. Raises _Ended."""
        parent = self._best.commit
        if problems := rules.check_change(self._workspace, self._change, parent, self._commit):
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            syntax = "syntax error" in problems[0]
            raise _Ended("crash" if syntax else "rejected", f"{'' if syntax else 'guard: '}{problems[0]}{more}")
        config = self._storage.config_at(self._commit)
        if frozen := rules.check_frozen(config, self._storage.config.start):
            raise _Ended("rejected", f"guard: {frozen[0]}")
        old, new = settings_of(self._storage.config_at(parent)), settings_of(config)
        self._overrides = {key: new.get(key) for key in differing(old, new)}

    def _measure(self) -> Keep | Discard:
        """Run the candidate at the seeds of the best until the decision is made. Raises TrialFailed."""
        settings = self._storage.config
        simpler = self._change.code_deletions > self._change.code_insertions
        judge = Judge(
            self._reference.noise(),
            max_seeds=settings.seeds.most,
            false_keep_rate=settings.decision.false_keep_rate,
            equivalence=settings.decision.equivalence,
            greedy=settings.decision.greedy,
        )
        trials = self._trials
        wanted = 1
        with self._harness.trials_of(self._commit, self._folder) as trial_at:
            while True:
                while len(trials) < wanted:
                    paired, _ = self._reference.values()
                    if len(trials) >= len(paired):  # the best has not been run at this seed
                        self._reference.extend()
                        paired, _ = self._reference.values()
                        if len(trials) >= len(paired):
                            return Discard("undecided, and the best cannot be measured at another seed")
                    seed = list(paired)[len(trials)]
                    self._view.doing(f"experiment {self._number}, seed {seed}: {self._hypothesis}")
                    trials.append(trial_at(seed))
                paired, others = self._reference.values()
                action = judge.next([t.val_bpb or 0.0 for t in trials], [*paired.values(), *others], simpler)
                if isinstance(action, Keep | Discard):
                    return action
                wanted += action.n

    def _record(self, status: Status, reason: str, started: float) -> Record:
        """Write the experiment down, and let the branch follow."""
        parent = self._best.commit
        diff = printable(self._workspace.diff(parent, self._commit))
        (self._folder / "diff.patch").write_text(diff, encoding="utf-8", errors="replace")
        if status != "keep":
            for trial in self._trials:
                for file in (self._storage.home / trial.run).glob("*.safetensors"):
                    file.unlink(missing_ok=True)
        record = Record(
            number=self._number,
            event="experiment",
            commit=self._commit,
            parent=parent,
            hypothesis=self._hypothesis,
            proposer=self._proposer.name,
            kind=self._kind,
            files=sorted(self._change.status),
            insertions=self._change.insertions,
            deletions=self._change.deletions,
            overrides=self._overrides,
            status=status,
            reason=one_line(reason, 500),
            **measured(self._trials, started),
        )
        self._storage.ledger.append(record)
        self._view.decided(record, self._storage.best)
        if status == "keep":
            self._workspace.keep(self._commit)
        return record
