"""The loop: propose, commit, guard, measure, decide, write down. One home folder holds a research, whole.

The ledger's append is the moment at which an experiment has happened. What is done before it leaves nothing that
`recover` does not clear away, and what follows from it (the branch, results.tsv) is made again from the ledger.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

from filelock import FileLock, Timeout

from ..config import Config
from ..data.prepare import open_prepared
from ..errors import RunFailed, UserError
from ..paths import cache_dir
from . import guard, landlock
from .config import ResearchConfig, load_research
from .decision import Discard, Judge, Keep, Noise
from .ledger import Ledger, Record, Status, Trial, write_atomically
from .processes import kill_all, marked
from .proposers import make_proposer
from .proposers.base import Context, Proposal, ProposalFailed, Proposer
from .runner import Limits, TrialFailed, run_trial, status_of
from .sanitise import one_line, printable
from .view import View
from .workspace import EXPERIMENT, NO_CHANGE, Change, Workspace, repository_of

CONFIG, LEDGER, STATE = "research.yaml", "ledger.jsonl", "state.json"
Runner = Callable[..., Trial]


@dataclass
class _Candidate:
    """An experiment while it is being made: what will be in its record."""

    number: int
    folder: Path
    started: float
    parent: str
    commit: str
    hypothesis: str = "no proposal"
    kind: str = "other"
    change: Change = NO_CHANGE


class _Rejected(Exception):
    """The experiment ends here, without or after trials."""

    def __init__(self, status: Status, reason: str):
        super().__init__(reason)
        self.status: Status = status


class Research:
    """One research, opened for running; `start` makes a new one, `open` finds an old one."""

    def __init__(self, repository: Path, home: Path, config: ResearchConfig, *, run: Runner = run_trial):
        self.repository, self.home, self.config = repository, home, config
        self.ledger = Ledger(home / LEDGER)
        self._mark = f"research:{home}"
        self.workspace = Workspace(repository, home, config.tag, self._mark)
        self.proposer: Proposer = make_proposer(config)
        self._run = run

    @classmethod
    def start(cls, config: ResearchConfig, parent: Path, repository: Path, *, run: Runner = run_trial) -> Research:
        """A new research in `parent`/<tag>: its folder, branch and worktree. Raises UserError when there is one."""
        home = parent.absolute() / config.tag
        if (home / CONFIG).exists():
            raise UserError(f"{home} holds a research already: `research resume {config.tag}`, or choose another tag")
        if (home / LEDGER).exists():
            raise UserError(f"{home} has a ledger but no {CONFIG}: restore it, or choose another tag")
        workspace = Workspace(repository, home, config.tag)
        if home.exists():  # a start that was killed half way
            workspace.discard()
            shutil.rmtree(home)
        workspace.require_new()
        home.mkdir(parents=True)
        workspace.create(config.start.to_yaml())
        write_atomically(home / CONFIG, config.to_yaml())
        return cls(repository, home, config, run=run)

    @classmethod
    def open(cls, home: Path, *, run: Runner = run_trial) -> Research:
        """An existing research. Raises UserError when `home` holds none."""
        home = home.absolute()
        if not (home / CONFIG).is_file():
            raise UserError(f"{home} holds no research; `research start` makes one")
        return cls(repository_of(home.parent), home, load_research(home / CONFIG), run=run)

    def go(self, view: View, *, experiments: int | None = None) -> None:
        """Run to the end: until `experiments` more, the configuration's own limits, or a proposer that has no more.

        Raises UserError when another process runs this research or something it relies on has changed, RunFailed when
        the starting point cannot be trained.
        """
        lock = FileLock(self.home / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"another process is running the research in {self.home}") from None
        with ExitStack() as stack:
            stack.callback(lock.release)
            self.recover()
            trusted = guard.trusted_files() | self._metric_files()
            self._check_state(trusted)
            started = time.monotonic()
            if not self.ledger.records():
                self._baseline(view)
            for record in self.ledger.records():
                self.proposer.told(record)
            done = 0
            while not self._finished(done, experiments, started):
                if changed := guard.differences(trusted, guard.trusted_files() | self._metric_files()):
                    raise _changed(changed)
                self._measure_best(view)
                if not self._experiment(view):
                    view.say("the proposer has nothing more to propose")
                    break
                done += 1

    def recover(self) -> None:
        """Whatever state the last process left: end its processes, forget what was not decided, restore the best."""
        kill_all(lambda: marked(self._mark))
        self.workspace.unlock()
        records = self.ledger.records()
        best = self.ledger.best()
        if best is not None:
            self.workspace.keep(best.commit)
        else:
            self.workspace.reset()
        for folder in (self.home / "experiments").glob("[0-9]*"):
            for scratch in [*folder.glob(".scratch-*"), folder / "code"]:
                shutil.rmtree(scratch, ignore_errors=True)
        number = self._next(records)
        self.workspace.forget(number)
        shutil.rmtree(self._folder(number), ignore_errors=True)
        self.ledger.write_tsv()

    def _metric_files(self) -> dict[str, str]:
        data = self.config.start.data
        return guard.metric_files(open_prepared(data.source, vocab_size=data.vocab_size, cache_dir=cache_dir()))

    def _check_state(self, trusted: dict[str, str]) -> None:
        """Compare what results depend on with what it was at the start. Raises UserError."""
        path = self.home / STATE
        if self.ledger.records() and path.exists():
            if changed := guard.differences(json.loads(path.read_text(encoding="utf-8")), trusted):
                raise _changed(changed)
        else:
            write_atomically(path, json.dumps(trusted, indent=2) + "\n")

    def _finished(self, done: int, experiments: int | None, started: float) -> bool:
        records = self.ledger.records()
        total = sum(r.event == "experiment" for r in records)
        spent = sum(r.seconds for r in records)
        config = self.config
        return (
            (experiments is not None and done >= experiments)
            or (config.experiments is not None and total >= config.experiments)
            or (config.hours is not None and spent >= 3600 * config.hours)
        )

    def _baseline(self, view: View) -> None:
        """Measure the starting point at several seeds, to learn this machine's noise."""
        seeds = self.config.seeds.window(0)[: 1 if self.config.decision.greedy else self.config.seeds.baseline]
        commit = self.workspace.best
        started = time.monotonic()
        folder = self._folder(0)
        folder.mkdir(parents=True, exist_ok=True)
        trials = []
        config = self._config_at(commit)
        with self._code(commit, folder) as code:
            for i, seed in enumerate(seeds, 1):
                view.doing(f"baseline, run {i} of {len(seeds)}")
                try:
                    trials.append(self._trial(config, commit, seed, folder, code, view))
                except TrialFailed as failure:
                    raise RunFailed(f"the starting point cannot be measured: {failure}") from None
        self._record(
            Record(
                number=0,
                event="baseline",
                time=_now(),
                commit=commit,
                parent=commit,
                hypothesis="the starting point",
                proposer="start",
                kind="baseline",
                files=[],
                insertions=0,
                deletions=0,
                overrides={},
                trials=trials,
                val_bpb=_mean(trials),
                status="keep",
                reason=f"{len(trials)} seeds",
                seconds=time.monotonic() - started,
            ),
            view,
        )

    def _measure_best(self, view: View) -> None:
        """Measure the best at new seeds when it has just become that, and every so often."""
        if self.config.decision.greedy:
            return
        best = self._best()
        records = self.ledger.records()
        own = [i for i, r in enumerate(records) if r.commit == best.commit]
        fresh = any(records[i].event in ("remeasure", "baseline") for i in own)
        since = sum(r.event == "experiment" for r in records[own[-1] + 1 :])
        if not fresh or since >= self.config.remeasure_every:
            window = 1 + max(self._window_of(t.seed) for r in records for t in r.trials)
            self._remeasure(best, self.config.seeds.window(window)[: self.config.seeds.best], view)

    def _remeasure(self, best: Record, seeds: list[int], view: View) -> None:
        """Run the best again at `seeds` and write it down."""
        started = time.monotonic()
        folder = self._folder(best.number)
        trials: list[Trial] = []
        reason = f"seeds {', '.join(map(str, seeds))}"
        config = self._config_at(best.commit)
        with self._code(best.commit, folder) as code:
            for i, seed in enumerate(seeds, 1):
                view.doing(f"the best again, run {i} of {len(seeds)}")
                try:
                    trials.append(self._trial(config, best.commit, seed, folder, code, view))
                except TrialFailed as failure:  # it says so in the ledger; what was measured before goes on to count
                    reason = f"seed {seed}: {failure}"
                    break
        again = replace(
            best,
            event="remeasure",
            time=_now(),
            trials=trials,
            val_bpb=_mean(trials),
            reason=one_line(reason, 500),
            seconds=time.monotonic() - started,
        )
        self._record(again, view)

    def _experiment(self, view: View) -> bool:
        """Make, measure and record one experiment; False when the proposer has no more."""
        records = self.ledger.records()
        best = self._best()
        number = self._next(records)
        folder = self._folder(number)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.workspace.reset()
        candidate = _Candidate(number, folder, time.monotonic(), best.commit, best.commit)
        trials: list[Trial] = []
        overrides: dict = {}
        action: Keep | Discard | None = None
        status: Status = "discard"
        reason = ""
        try:
            view.doing(f"experiment {number}: waiting for {self.proposer.name}")
            proposal = self._propose(candidate, best, records)
            if proposal is None:
                return False
            notes = self._commit(candidate, proposal, best)
            overrides = self._check(candidate, best)
            view.doing(f"experiment {number}: {candidate.hypothesis}")
            action = self._judge(candidate, trials, view)
            status = "keep" if isinstance(action, Keep) else "discard"
            reason = "; ".join([action.reason, *notes])
        except _Rejected as rejected:
            status, reason = rejected.status, str(rejected)
        except TrialFailed as failure:
            status, reason = status_of(failure.kind), f"{failure.kind}: {one_line(failure.detail)}"
            (folder / "output.txt").write_text(failure.detail, encoding="utf-8")
        change = candidate.change
        (folder / "diff.patch").write_text(
            printable(self.workspace.diff(candidate.parent, candidate.commit)), encoding="utf-8", errors="replace"
        )
        if status != "keep":
            trials = [self._drop_checkpoint(trial) for trial in trials]
        record = Record(
            number=number,
            event="experiment",
            time=_now(),
            commit=candidate.commit,
            parent=candidate.parent,
            hypothesis=candidate.hypothesis,
            proposer=self.proposer.name,
            kind=candidate.kind,
            files=sorted(change.status),
            insertions=change.insertions,
            deletions=change.deletions,
            overrides=overrides,
            trials=trials,
            val_bpb=_mean(trials),
            status=status,
            reason=one_line(reason, 500),
            seconds=time.monotonic() - candidate.started,
        )
        self._record(record, view)
        if status == "keep":
            self.workspace.keep(candidate.commit)
        self.proposer.told(record)
        return True

    def _propose(self, candidate: _Candidate, best: Record, records: list[Record]) -> Proposal | None:
        context = Context(
            number=candidate.number,
            best=best,
            history=records,
            worktree=self.workspace.path,
            folder=candidate.folder,
            config=self._config_at(best.commit),
            allowed=list(guard.EDITABLE),
            frozen=[*(f"{section}.*" for section in guard.FROZEN_SECTIONS), *guard.FROZEN_KEYS, "train.seed"],
            mark=self._mark,
        )
        before = self._outside()
        failed: ProposalFailed | None = None
        proposal = None
        try:
            proposal = self.proposer.propose(context)
            if proposal is not None:
                candidate.hypothesis, candidate.kind = one_line(proposal.hypothesis), one_line(proposal.kind, 40)
        except ProposalFailed as failure:
            failed = failure
        if changed := guard.differences(before, self._outside()):
            raise _Rejected("rejected", f"guard: {changed[0]} changed outside the worktree")
        if failed is not None:
            statuses: dict[str, Status] = {"timeout": "timeout", "no change": "rejected", "guard": "rejected"}
            raise _Rejected(statuses.get(failed.kind, "crash"), f"{failed.kind}: {one_line(str(failed))}")
        return proposal

    def _commit(self, candidate: _Candidate, proposal: Proposal, best: Record) -> list[str]:
        """Turn a proposal into a commit; returns notes for the reason. Raises _Rejected."""
        if proposal.patch is not None and (wrong := self.workspace.apply(proposal.patch)) is not None:
            raise _Rejected("rejected", f"the patch does not apply: {one_line(wrong)}")
        file = self.workspace.path / EXPERIMENT
        start = self._config_at(best.commit)
        notes = []
        try:
            if file.is_symlink() or not file.resolve().is_relative_to(self.workspace.path.resolve()):
                raise UserError(f"{EXPERIMENT} is not a regular file")
            text = file.read_bytes() if file.is_file() else None
            config = guard.read_config(text)
            if proposal.overrides:
                config = guard.with_overrides(config, proposal.overrides)
            if config.train.seed != start.train.seed:
                notes.append(f"train.seed={config.train.seed} was put back")
                seed = {"train": config.train.model_copy(update={"seed": start.train.seed})}
                config = config.model_copy(update=seed)
            if notes or proposal.overrides:
                file.write_text(config.to_yaml(), encoding="utf-8")
        except UserError as error:
            self._make_commit(candidate)
            raise _Rejected("rejected", str(error)) from None
        self._make_commit(candidate)
        if not candidate.change.status:
            raise _Rejected("rejected", "; ".join(["no change", *notes]))
        return notes

    def _make_commit(self, candidate: _Candidate) -> None:
        candidate.commit = self.workspace.commit(candidate.number, candidate.hypothesis, candidate.parent)
        candidate.change = self.workspace.change(candidate.parent, candidate.commit)

    def _check(self, candidate: _Candidate, best: Record) -> dict:
        """The guard's static part; returns the settings that changed. Raises _Rejected."""
        if problems := guard.check_change(self.workspace, candidate.change, candidate.parent, candidate.commit):
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            syntax = "syntax error" in problems[0]
            raise _Rejected("crash" if syntax else "rejected", f"{'' if syntax else 'guard: '}{problems[0]}{more}")
        config = self._config_at(candidate.commit)
        if frozen := guard.check_frozen(config, self.config.start):
            raise _Rejected("rejected", f"guard: {frozen[0]}")
        old, new = guard.settings(self._config_at(best.commit)), guard.settings(config)
        return {key: new.get(key) for key in guard.differences(old, new)}

    def _judge(self, candidate: _Candidate, trials: list[Trial], view: View) -> Keep | Discard:
        """Run seeds until the decision is made; `trials` grows."""
        settings = self.config
        simpler = candidate.change.code_deletions > candidate.change.code_insertions
        judge = Judge(
            self._noise(),
            max_seeds=settings.seeds.most,
            false_keep_rate=settings.decision.false_keep_rate,
            equivalence=settings.decision.equivalence,
            greedy=settings.decision.greedy,
        )
        config = self._config_at(candidate.commit)
        wanted = 1
        with self._code(candidate.commit, candidate.folder) as code:
            while True:
                while len(trials) < wanted:
                    paired, _ = self._reference()
                    if len(trials) >= len(paired):  # the best has not been run at this seed
                        window = self.config.seeds.window(self._window_of(next(iter(paired))))
                        self._remeasure(self._best(), [next(s for s in window if s not in paired)], view)
                        paired, _ = self._reference()
                        if len(trials) >= len(paired):
                            return Discard("undecided, and the best cannot be measured at another seed")
                    seed = list(paired)[len(trials)]
                    view.doing(f"experiment {candidate.number}, seed {seed}: {candidate.hypothesis}")
                    trials.append(self._trial(config, candidate.commit, seed, candidate.folder, code, view))
                paired, others = self._reference()
                action = judge.next([t.val_bpb or 0.0 for t in trials], [*paired.values(), *others], simpler)
                if isinstance(action, Keep | Discard):
                    return action
                wanted += action.n

    def _reference(self) -> tuple[dict[int, float], list[float]]:
        """The best's fresh val_bpb: of its latest window by seed, and of earlier ones.

        Fresh is what did not make it the best: what was measured afterwards, and all of the starting point's. Without
        any, what made it the best stands in, which makes a keep harder.
        """
        best = self._best()
        records = [r for r in self.ledger.records() if r.commit == best.commit]
        fresh = [r for r in records if r.event in ("remeasure", "baseline")]
        if not any(r.trials for r in fresh):
            fresh = [best]
        values = {t.seed: t.val_bpb for r in fresh for t in r.trials if t.val_bpb is not None}
        window = max(map(self._window_of, values))
        paired = {seed: v for seed, v in values.items() if self._window_of(seed) == window}
        return paired, [v for seed, v in values.items() if seed not in paired]

    def _noise(self) -> Noise:
        """From all that was measured of the baseline and of kept experiments, each window by itself."""
        if self.config.decision.greedy:
            return Noise(0.0, 1)
        groups: dict[tuple, list[float]] = {}
        for r in self.ledger.records():
            if r.status == "keep":
                for t in r.trials:
                    if t.val_bpb is not None:
                        groups.setdefault((r.commit, r.event, self._window_of(t.seed)), []).append(t.val_bpb)
        return Noise.pooled(groups.values())

    def _trial(self, config: Config, commit: str, seed: int, folder: Path, code: Path | None, view: View) -> Trial:
        run = folder / str(seed)
        shutil.rmtree(run, ignore_errors=True)
        before = guard.tree_hash(code) if code else ""
        outside = self._outside() if code else {}
        trial = self._run(
            config, seed=seed, folder=run, code=code, limits=self._limits(), mark=self._mark, say=view.progress
        )
        if code and (guard.tree_hash(code) != before or guard.differences(outside, self._outside())):
            raise TrialFailed("guard", "files outside the run's own folder changed while it ran")
        return replace(trial, run=os.path.relpath(trial.run, self.home))

    def _limits(self) -> Limits:
        """The configured limits, and once the baseline is known, a few times what it took."""
        limits = self.config.limits
        allowed = Limits(
            startup_seconds=limits.startup_seconds,
            training_seconds=limits.training_seconds,
            evaluate_seconds=limits.evaluate_seconds,
            memory_mb=limits.memory_mb or 0.8 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20,
        )
        baseline = next(iter(self.ledger.records()), None)
        if baseline is None:
            return allowed
        training = max(t.training_seconds for t in baseline.trials)
        overhead = max(t.total_seconds - t.training_seconds for t in baseline.trials)
        return replace(
            allowed,
            startup_seconds=min(allowed.startup_seconds, 60 + 3 * overhead),
            training_seconds=min(allowed.training_seconds, 60 + 3 * training),
            evaluate_seconds=min(allowed.evaluate_seconds, 60 + 3 * overhead),
        )

    @contextmanager
    def _code(self, commit: str, folder: Path) -> Iterator[Path | None]:
        """A snapshot of a commit's code while it is needed; None where it is the installed code."""
        code = folder / "code"
        shutil.rmtree(code, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        self.workspace.snapshot(commit, code)
        try:
            yield None if guard.is_installed(code) else code
        finally:
            shutil.rmtree(code, ignore_errors=True)

    def _outside(self) -> dict[str, str]:
        """What must not change while untrusted code runs. Under Landlock only that which we alone write to.

        Without Landlock the user's checkout belongs to it; working there meanwhile then costs an experiment.
        """
        state = {f"installed {name}": value for name, value in guard.trusted_files().items()} | self._metric_files()
        for name in (CONFIG, LEDGER):
            path = self.home / name
            state[name] = path.read_bytes().hex() if path.exists() else ""
        if not landlock.version():
            state |= guard.checkout_state(self.repository, self.config.tag)
        return state

    def _drop_checkpoint(self, trial: Trial) -> Trial:
        for file in (self.home / trial.run).glob("*.safetensors"):
            file.unlink(missing_ok=True)
        return trial

    def _record(self, record: Record, view: View) -> None:
        self.ledger.append(record)
        view.decided(record, self._best())

    def _config_at(self, commit: str) -> Config:
        return guard.read_config(self.workspace.read(commit, EXPERIMENT))

    def _best(self) -> Record:
        best = self.ledger.best()
        assert best is not None, "the baseline is kept"
        return best

    def _window_of(self, seed: int) -> int:
        return (seed - self.config.seeds.first) // self.config.seeds.size

    def _folder(self, number: int) -> Path:
        return self.home / "experiments" / f"{number:04d}"

    @staticmethod
    def _next(records: list[Record]) -> int:
        return 1 + max((r.number for r in records), default=-1)


def _changed(names: list[str]) -> UserError:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return UserError(
        f"what results depend on has changed since the start ({names[0]}{more}): they would not be comparable; restore "
        "it and resume, or start a new research"
    )


def _mean(trials: list[Trial]) -> float | None:
    values = [t.val_bpb for t in trials if t.val_bpb is not None]
    return fmean(values) if values else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
