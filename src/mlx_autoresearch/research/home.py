"""A search on disk: one home folder, one branch, one ledger; made, opened and recovered here.

The append to the ledger is the moment at which an experiment has happened. Everything before it is undone by `recover`;
everything after it (the branch, results.tsv) is rebuilt from the ledger.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.ledger.files import (
    CODE,
    LEDGER,
    LOCK,
    SCRATCH,
    SETTINGS,
    STARTED_WITH,
    STARTING,
    TRUSTED,
    experiment_folder,
    experiments_folder,
)
from mlx_autoresearch.ledger.held import HeldFile, HeldFolder, make_folder, remove
from mlx_autoresearch.ledger.ledger import Ledger, Record, Trial
from mlx_autoresearch.machine.disk import Disks, trouble
from mlx_autoresearch.machine.files import write_atomically
from mlx_autoresearch.machine.lock import acquired, is_free
from mlx_autoresearch.metric.bits import DocumentBits
from mlx_autoresearch.sandbox.processes import kill_all, marked
from mlx_autoresearch.training.files import CHECKPOINT
from mlx_autoresearch.trials.score import confirmation_bits
from mlx_autoresearch.trials.trial import run_trial

from .editable import EXPERIMENT
from .guard.rules import read_config
from .settings import SearchConfig, changed_settings, load_search
from .workspace import Workspace, repository_of_search

Runner = Callable[..., Trial]  # with the arguments of `run_trial`
Reader = Callable[..., DocumentBits]  # with the arguments of `confirmation_bits`


class Search:
    """The search in `home`, whose branch belongs to the checkout at `repository`.

    mark: by which every process that the search starts is found again; see `processes.marked`.
    run_trial, confirm: as trials.trial and trials.score have them.
    untrusted_code_ran: since what results depend on was last compared.
    waited_seconds: for the device, in all trials of this process. disturbed: how often the step that is being done was
    ended by what is nobody's proposal. changed: settings that are not those of the start, as they may be.
    disks: that it writes to.
    """

    def __init__(
        self,
        repository: Path,
        home: Path,
        config: SearchConfig,
        *,
        run_trial: Runner = run_trial,
        confirm: Reader = confirmation_bits,
    ):
        self.repository, self.home, self.config = repository, home, config
        self.run_trial, self.confirm = run_trial, confirm
        self.mark = f"research:{home.resolve()}"
        self.disks = Disks({home: self._room, repository: lambda: 0, Path(tempfile.gettempdir()): lambda: 0})
        self.ledger = Ledger(home / LEDGER, surely=self.disks.surely)
        self.workspace = Workspace(repository, home, config.tag, self.mark)
        self.untrusted_code_ran = False
        self.waited_seconds = 0.0
        self.disturbed = 0
        self.changed: list[str] = []
        self._lock = FileLock(home / LOCK)
        self._lock_inode = 0
        self._held: list[HeldFolder | HeldFile] = []

    @classmethod
    def start(
        cls,
        config: SearchConfig,
        parent: Path,
        repository: Path,
        *,
        run_trial: Runner = run_trial,
        confirm: Reader = confirmation_bits,
    ) -> Search:
        """A new search in `parent`/<tag>: its folder and branch.

        Replaces one that has measured nothing. Raises UserError when there is another one.
        """
        home = parent.absolute() / config.tag
        workspace = Workspace(repository, home, config.tag)
        empty = _has_measured_nothing(home) and workspace.is_at_start()
        if (home / SETTINGS).exists() and not empty:
            raise UserError(f"{home} holds a search already: `research resume {config.tag}`, or choose another tag")
        if (home / LEDGER).exists() and not empty:
            raise UserError(f"{home} has a ledger but no {SETTINGS}: restore it, or choose another tag")
        if (home / STARTING).is_file() or empty:  # of a start that was killed half way: nothing in it has happened
            workspace.discard()
            shutil.rmtree(home)
        if home.exists() and any(home.iterdir()):
            raise UserError(f"{home} exists and holds no search: choose another tag, or another --home")
        workspace.require_new()
        for folder in (home, repository):
            if wrong := trouble(folder):
                raise UserError(f"no search can be started: {wrong}")
        home.mkdir(parents=True, exist_ok=True)
        (home / STARTING).touch()
        workspace.create(config.start.to_yaml())
        write_atomically(home / TRUSTED, json.dumps({STARTED_WITH: config.model_dump(mode="json")}, indent=2) + "\n")
        write_atomically(home / SETTINGS, config.to_yaml())
        (home / STARTING).unlink()
        return cls(repository, home, config, run_trial=run_trial, confirm=confirm)

    @classmethod
    def open(cls, home: Path, *, run_trial: Runner = run_trial, confirm: Reader = confirmation_bits) -> Search:
        """An existing search, to be run. Changes nothing.

        Raises UserError when `home` holds none, one of a version whose commits this one cannot measure, or one whose
        settings are no longer those that it was started with.
        """
        home = home.absolute()
        if not (home / SETTINGS).is_file():
            raise UserError(f"{home} holds no search; `research start` makes one")
        config = load_search(home / SETTINGS)
        before = _started_with(home)
        changed = [] if before is None else _changes(before, config, home)
        search = cls(repository_of_search(home, config.tag), home, config, run_trial=run_trial, confirm=confirm)
        for record in search.ledger.records()[-1:]:
            record.methods.require_current(f"the search {config.tag}")
        if not search.workspace.has_code(search.workspace.best):
            raise UserError(
                f"the search {search.config.tag} was begun with an earlier version of mlx_autoresearch, whose code "
                "this one cannot run: resume it with that version, or start a new search from its best settings, which "
                f"`git show research/{search.config.tag}:{EXPERIMENT}` prints"
            )
        if before is None:
            start = next((r.commit for r in search.ledger.records()), search.workspace.best)
            started = {"start": read_config(search.workspace.read(start, EXPERIMENT))}
            changed = _changes(config.model_copy(update=started), config, home)
        search.changed = changed
        return search

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While this process runs the search. Raises UserError when another one does."""
        self._take_lock()
        try:
            yield
        finally:
            self._lock.release()

    def _take_lock(self) -> None:
        if not acquired(self._lock):
            raise UserError(f"another process is running the search in {self.home}")
        self._lock_inode = (self.home / LOCK).stat().st_ino

    def recover(self) -> None:
        """Whatever state the last process left: end its processes, forget what was not decided, restore the best."""
        kill_all(lambda: marked(self.mark))
        self.ledger.read()  # another process may have appended before we had the lock
        self.renew()

    def renew(self) -> None:
        """As `recover`, within a process: what it holds of the ledger is what counts."""
        kill_all(lambda: marked(self.mark))
        self.workspace.unlock()
        self.workspace.clear()
        best = self.ledger.best()
        if best is not None:
            self.workspace.keep(best.commit)
        make_folder(experiments_folder(self.home))
        for folder in experiments_folder(self.home).glob("[0-9]*"):
            if folder.is_symlink() or not folder.is_dir():  # untrusted code has put it there
                remove(folder)
                continue
            for scratch in [*folder.glob(f"{SCRATCH}-*"), folder / CODE]:
                remove(scratch)
        number = self.next_number()
        self.workspace.forget(number)
        remove(self.folder(number))
        self.ledger.write_tsv()

    def make_room(self) -> None:
        """Delete what the experiment that is not decided has written; this needs no room on the disk."""
        remove(self.workspace.path)
        remove(self.folder(self.next_number()))

    def hold(self) -> None:
        """Hold in memory the folders, and the files by which the search is opened again."""
        files = [HeldFile(self.home / name) for name in (SETTINGS, TRUSTED)]
        for file in files:
            file.read()
        self._held = [HeldFolder(self.home), HeldFolder(experiments_folder(self.home)), *files]

    def restore(self) -> list[str]:
        """Put the search's own files back where something else has changed them; the names of those."""
        changed = [held.path.name for held in self._held if held.restore()]
        if self._lock.is_locked and self._lock_lost():
            changed.append(LOCK)
            self._lock.release()
            remove(self.home / LOCK)
            self._take_lock()
        return self.ledger.restore() + changed

    def _lock_lost(self) -> bool:
        """Whether the file that is locked is no longer the one that other processes find."""
        try:
            return (self.home / LOCK).lstat().st_ino != self._lock_inode
        except OSError:
            return True

    def seconds(self) -> float:
        """A clock that stands still while a trial waits for the device."""
        return time.monotonic() - self.waited_seconds

    @property
    def best(self) -> Record:
        """The kept record that the branch stands on; there is one once the baseline is in the ledger."""
        best = self.ledger.best()
        assert best is not None, "the baseline is kept"
        return best

    def next_number(self) -> int:
        """The first number that the ledger has not decided; 0 is the baseline's."""
        return 1 + max((r.number for r in self.ledger.records()), default=-1)

    def _room(self) -> int:
        """Bytes that the next trial is going to write: the best's checkpoint twice, because a new one replaces it."""
        best = self.ledger.best() if self.ledger.is_read else None
        checkpoints = [self.home / trial.run / CHECKPOINT for trial in (best.trials if best else ())]
        return 2 * max((512 * path.stat().st_blocks for path in checkpoints if path.is_file()), default=0)

    def folder(self, number: int) -> Path:
        """Where an experiment's files are."""
        return experiment_folder(self.home, number)


def _started_with(home: Path) -> SearchConfig | None:
    """The settings that the search in `home` was started with; None where its version has not written them down."""
    try:
        values = json.loads((home / TRUSTED).read_text(encoding="utf-8"))[STARTED_WITH]
        return SearchConfig.model_validate_json(json.dumps(values), strict=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _changes(before: SearchConfig, now: SearchConfig, home: Path) -> list[str]:
    try:
        return changed_settings(before, now)
    except UserError as error:
        raise UserError(f"{home / SETTINGS}: {error}") from None


def _has_measured_nothing(home: Path) -> bool:
    """Whether `home` holds a search, which no process runs, without a record and without an experiment's folder."""
    return (
        (home / SETTINGS).is_file()
        and not Ledger(home / LEDGER).records()
        and all(path.name == experiment_folder(home, 0).name for path in experiments_folder(home).glob("*"))
        and is_free(home / LOCK)
    )
