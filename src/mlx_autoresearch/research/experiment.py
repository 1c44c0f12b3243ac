"""One experiment: propose, commit, check, measure, decide, append to the ledger."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any

from mlx_autoresearch.config.keys import differing
from mlx_autoresearch.config.load import settings_of, with_settings
from mlx_autoresearch.errors import ReportedError, UserError
from mlx_autoresearch.ledger.files import DIFF, OUTPUT, TRACEBACK
from mlx_autoresearch.ledger.held import HeldFile, make_own_folder, remove
from mlx_autoresearch.ledger.ledger import LONGEST_REASON, Record, Status, measured
from mlx_autoresearch.machine.standstill import Standstill
from mlx_autoresearch.plain_text import one_line, printable
from mlx_autoresearch.trials.trial import TrialFailed, status_of

from . import fault, leftovers
from .candidate import Candidate
from .champion import Champion
from .comparison import Comparison, NotConfirmed
from .decision import Discard, Keep
from .editable import EXPERIMENT
from .guard import integrity, rules
from .handover import Refused
from .home import Search
from .proposers.base import Context, Proposal, ProposalFailed, Proposer
from .view import View
from .workspace import NO_CHANGE

_LONGEST_VALUE = 10_000  # characters of a setting, as JSON, that the ledger takes


class _Ended(Exception):
    """The experiment ends without a decision on its val_bpb; the message is the record's reason."""

    def __init__(self, status: Status, reason: str):
        super().__init__(reason)
        self.status: Status = status


class Experiment:
    """The next experiment of a search. Each step sets the fields of the record that is written at the end."""

    def __init__(self, search: Search, champion: Champion, proposer: Proposer, view: View):
        self._search, self._champion, self._proposer, self._view = search, champion, proposer, view
        self._workspace = search.workspace
        self._best = champion.record
        self._number = search.next_number()
        self._folder = search.folder(self._number)
        self._commit, self._change = self._best.commit, NO_CHANGE
        self._files: dict[str, bytes | None] = {}  # that the commit changes
        self._notes: list[str] = []  # for the reason
        self._hypothesis, self._kind = "no proposal", "other"
        self._overrides: dict[str, Any] = {}
        self._candidate: Candidate | None = None
        self._comparison: Comparison | None = None  # once it is measured

    def conduct(self, trusted: dict[str, str]) -> Record | None:
        """Make, measure and record it; None when the proposer has no more.

        trusted: the state of what results depend on, which is compared afterwards, whatever the outcome. If it has
        changed and untrusted code has run, the experiment is rejected. If it has changed and no such code has run,
        somebody else changed it: raises UserError, and the experiment is forgotten. Whatever else is raised on the way
        is the proposal's end, unless the machine is to blame: see fault.py. Raises Disturbed, and what it says.
        """
        remove(self._folder)
        make_own_folder(self._folder)
        self._workspace.keep(self._best.commit)
        started = self._search.seconds()
        with Standstill() as standstill:
            outcome = self._attempt()
        if outcome is None:
            return None
        status, reason = outcome
        if status not in ("keep", "discard"):
            fault.require_calm(self._search, standstill if status == "timeout" else None)
        now = integrity.trusted_state(self._search.config)
        if self._search.untrusted_code_ran and (changed := differing(trusted, now)):
            status, reason = "rejected", f"guard: {changed[0]} changed, which results depend on"
        else:
            integrity.check_same(trusted, now)
        record = self._record(status, reason, started)
        if status == "keep":
            assert self._candidate is not None
            self._champion.crown(self._candidate)
            self._search.disks.surely(lambda: self._workspace.keep(record.commit))
        return record

    def _attempt(self) -> tuple[Status, str] | None:
        """How it ends, and why; None when the proposer has no more. Raises what is the machine's fault."""
        try:
            self._view.doing(f"experiment {self._number}: waiting for {self._proposer.name}")
            proposal = self._propose()
            if proposal is None:
                return None
            self._commit_proposal(proposal)
            self._candidate = self._check()
            self._view.doing(f"experiment {self._number}: {self._hypothesis}")
            action = self._measure(self._candidate)
            return "keep" if isinstance(action, Keep) else "discard", "; ".join([action.reason, *self._notes])
        except _Ended as ended:
            return ended.status, str(ended)
        except TrialFailed as failure:
            self._write(OUTPUT, failure.detail)
            return status_of(failure.kind), f"{failure.kind}: {one_line(failure.detail)}"
        except BrokenPipeError:  # nobody reads our output any more
            raise
        except Exception as error:  # whatever an agent, or its code, has left: it must not end the search
            fault.require_sound(self._search, self._best.commit, error)
            self._write(TRACEBACK, fault.trace(error))
            return "rejected" if isinstance(error, ReportedError) else "crash", fault.described(error)

    def _propose(self) -> Proposal | None:
        """Ask the proposer; one that is not trusted gets a folder, and what it has changed there is taken.

        Raises _Ended when it fails, has touched anything outside its folder, or has left there what is not taken.
        """
        context = Context(
            number=self._number,
            best=self._best,
            history=self._search.ledger.records(),
            worktree=self._workspace.path,
            folder=self._folder,
            config=self._champion.candidate.config,
            mark=self._search.mark,
        )
        proposal: Proposal | None = None
        trusted = self._proposer.trusted
        try:
            with nullcontext() if trusted else self._workspace.laid_out(self._best.commit):
                with nullcontext() if trusted else integrity.watched(self._search, self._folder):
                    proposal = self._proposer.propose(context)
                    if proposal is not None:
                        self._hypothesis, self._kind = one_line(proposal.hypothesis), one_line(proposal.kind, 40)
                if proposal is not None and not trusted:
                    self._take_files()
        except integrity.Trespass as trespass:
            raise _Ended("rejected", f"guard: {trespass} changed outside the worktree") from None
        except Refused as refused:
            raise _Ended("rejected", f"guard: {refused}") from None
        except ProposalFailed as failure:
            statuses: dict[str, Status] = {"timeout": "timeout", "guard": "rejected", "exception": "crash"}
            raise _Ended(statuses[failure.kind], f"{failure.kind}: {one_line(str(failure))}") from None
        return proposal

    def _take_files(self) -> None:
        """Read what differs in the agent's folder. Raises Refused."""
        handover = self._workspace.handover(self._best.commit)
        self._files = handover.files
        if left_out := handover.left_out:
            more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
            self._notes.append(f"{one_line(left_out[0], 80)}{more} left out: not among the files that may be changed")

    def _commit_proposal(self, proposal: Proposal) -> None:
        """Turn a proposal into a commit. Raises _Ended."""
        files, best = self._files, self._champion.candidate
        if proposal.patch is not None:
            try:
                files |= self._workspace.patched(best.commit, proposal.patch)
            except Refused as refused:
                raise _Ended("rejected", one_line(str(refused))) from None
        try:
            config = rules.read_config(files[EXPERIMENT]) if EXPERIMENT in files else best.config
            if proposal.overrides:
                config = with_settings(config, proposal.overrides, "the proposal")
            seed = best.config.train.seed
            if put_back := config.train.seed != seed:
                self._notes.append(f"train.seed={config.train.seed} was put back")
                config = with_settings(config, {"train.seed": seed}, "the search")
            if put_back or proposal.overrides:
                files[EXPERIMENT] = config.to_yaml().encode()
        except UserError as error:
            self._make_commit()
            raise _Ended("rejected", str(error)) from None
        self._make_commit()
        if not self._change.status:
            raise _Ended("rejected", "; ".join(["no change", *self._notes]))

    def _make_commit(self) -> None:
        self._commit = self._workspace.commit(self._number, self._hypothesis, self._best.commit, self._files)
        self._change = self._workspace.change(self._best.commit, self._commit)

    def _check(self) -> Candidate:
        """The guard's static part, and the settings that changed. Raises _Ended."""
        parent = self._champion.candidate
        if problems := rules.check_change(self._workspace, self._change, parent.commit, self._commit):
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            syntax = "syntax error" in problems[0]
            raise _Ended("crash" if syntax else "rejected", f"{'' if syntax else 'guard: '}{problems[0]}{more}")
        config = rules.read_config(self._workspace.read(self._commit, EXPERIMENT))
        if frozen := rules.check_frozen(config, self._search.config.start):
            raise _Ended("rejected", f"guard: {frozen[0]}")
        old, new = settings_of(parent.config), settings_of(config)
        self._overrides = {key: new.get(key) for key in differing(old, new)}
        return Candidate(
            commit=self._commit,
            change=self._change,
            config=config,
            code=parent.code if self._change.status.keys() <= {EXPERIMENT} else None,
        )

    def _measure(self, candidate: Candidate) -> Keep | Discard:
        """Compare the candidate with the best. Raises TrialFailed, _Ended."""
        self._comparison = Comparison(
            self._search,
            self._champion,
            self._view,
            candidate,
            overrides=self._overrides,
            folder=self._folder,
            name=f"experiment {self._number}",
            hypothesis=self._hypothesis,
        )
        try:
            return self._comparison.decide()
        except NotConfirmed as refused:
            raise _Ended("rejected", str(refused)) from None

    def _record(self, status: Status, reason: str, started: float) -> Record:
        """Write the experiment down."""
        self._write(DIFF, self._diff())
        compared = self._comparison
        record = Record(
            number=self._number,
            event="experiment",
            commit=self._commit,
            parent=self._best.commit,
            hypothesis=self._hypothesis,
            proposer=self._proposer.name,
            kind=self._kind,
            files=sorted(self._change.status),
            insertions=self._change.insertions,
            deletions=self._change.deletions,
            overrides={key: _recordable(value) for key, value in self._overrides.items()},
            status=status,
            reason=one_line(reason, LONGEST_REASON),
            confirmed=compared.confirmed if compared else None,
            simpler=compared.simpler if compared else False,
            **measured(compared.trials if compared else [], self._search.seconds() - started),
        )
        leftovers.clean(self._folder)
        self._search.ledger.append(record)
        leftovers.thin(self._search)
        self._view.decided(record, self._search.best)
        return record

    def _diff(self) -> str:
        try:
            return printable(self._workspace.diff(self._best.commit, self._commit))
        except Exception as error:  # an agent may have committed what cannot be shown
            fault.require_sound(self._search, self._best.commit, error)
            return fault.described(error)

    def _write(self, name: str, text: str) -> None:
        """A file in the experiment's folder, whatever untrusted code has put in the place of either."""

        def write() -> None:
            make_own_folder(self._folder)
            HeldFile(self._folder / name).write(text.encode(errors="replace"))

        self._search.disks.surely(write)


def _recordable(value: Any) -> Any:
    """A value of a configuration, whoever wrote it, as the ledger can hold it."""
    try:
        if len(json.dumps(value, allow_nan=False)) > _LONGEST_VALUE:
            return "a value that is too long for the ledger"
    except (ValueError, TypeError, RecursionError):  # NaN, an integer of thousands of digits
        return "a value that the ledger cannot hold"
    return value
