"""A sweep's queue, in an Optuna storage.

Each point is queued, claimed by one process, and queued again if that process dies.

What Optuna calls a trial is one point here: its result is the mean of one run for each seed.
"""

from __future__ import annotations

import json
import re
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.machine.lock import is_free
from mlx_autoresearch.methods import CURRENT, FIRST, Methods

from .spec import TPE_STARTUP, Axis, Choices, Sweep

JOURNAL = "journal.log"
_HEARTBEAT, _GRACE = 30, 180  # seconds; a machine that is silent for longer counts as dead
_STARTING = 60  # seconds that a process has between claiming a point and writing down where it runs

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Queue:
    """The study of a sweep, and the folder `home` in which this machine keeps its runs.

    Any number of processes may work on it: on one machine through the journal file in `home`, on several through a
    storage URL. Raises UserError when the storage cannot be opened or holds another sweep of this name.
    """

    def __init__(self, sweep: Sweep, home: Path, name: str):
        self.sweep, self.home = sweep, home
        self.axes = sweep.axes
        self._locks = home / "locks"
        self._locks.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(self._locks / "sweep.lock")
        self._where = f"{socket.gethostname()}:{home.resolve()}"
        self._held: FileLock | None = None
        with _storage_errors(sweep.storage or str(home / JOURNAL)), self.lock:
            storage = self._open_storage()
            self.study = optuna.create_study(
                storage=storage, study_name=name, direction="minimize", load_if_exists=True, pruner=_pruner(sweep)
            )
            self._check_same()
            self._fill()

    def _open_storage(self) -> BaseStorage:
        if self.sweep.storage is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of the heartbeat
                return RDBStorage(
                    self.sweep.storage,
                    heartbeat_interval=_HEARTBEAT,
                    grace_period=_GRACE,
                    heartbeat_stale_trial_callback=lambda study, trial: self.queue_again(trial),
                )
        path = self.home / JOURNAL
        _mend(path)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=_JournalLock(self._locks / "journal.lock")))

    def _check_same(self) -> None:
        """Refuse a sweep of the same name with other settings: their results cannot be compared."""
        asked = self.sweep.model_dump(mode="json", exclude={"trials", "storage"})
        asked["config"] = Path(self.sweep.config).read_text(encoding="utf-8")
        before = self.study.user_attrs.get("sweep")
        methods = self.study.user_attrs.get("methods")
        if before is None:
            self.study.set_user_attr("methods", asdict(CURRENT))
            self.study.set_user_attr("sweep", asked)
            return
        (FIRST if methods is None else Methods(**methods)).require_current(f"the sweep in {self.home}")
        if changed := sorted(key for key in asked if asked[key] != before.get(key)):
            raise UserError(
                f"the sweep in {self.home} was started with another {', '.join(changed)}: "
                "rename the file of the new one, or delete the folder"
            )

    def _fill(self) -> None:
        """Queue the points that are not in the study yet."""
        present = [json.dumps(t.user_attrs["point"]) for t in self.originals() if "point" in t.user_attrs]
        for point in self.sweep.points():
            text = json.dumps(point)
            if text in present:
                present.remove(text)
            else:
                params = {key: encode(self.axes[key], value) for key, value in point.items()}
                self.study.enqueue_trial(params, user_attrs={"point": point})

    def surplus(self) -> int:
        """How many points were queued beyond what the sweep's file asks for now: its `trials` have been lowered."""
        wanted = self.sweep.trials
        return 0 if wanted is None else max(0, sum("point" in t.user_attrs for t in self.originals()) - wanted)

    def points(self) -> list[FrozenTrial]:
        """One Optuna trial for each point: those that were given up and queued again are left out."""
        trials = self.study.get_trials(deepcopy=False)
        repeated = {t.user_attrs.get("repeats") for t in trials}
        return [t for t in trials if t.number not in repeated and "point" in t.user_attrs]

    def originals(self) -> list[FrozenTrial]:
        """One Optuna trial for each point: the one that was queued first."""
        return [t for t in self.study.get_trials(deepcopy=False) if "repeats" not in t.user_attrs]

    def count(self, *states: TrialState) -> int:
        return sum(t.state in states for t in self.points())

    def next_sampler(self) -> None:
        """Set a sampler whose random numbers differ from those of the points before."""
        seed = len(self.study.get_trials(deepcopy=False)) + sum(t.state.is_finished() for t in self.points())
        self.study.sampler = optuna.samplers.TPESampler(n_startup_trials=TPE_STARTUP, seed=seed)

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """The values of a point: as it was queued, or as the sampler chooses."""
        return {key: decode(axis, _suggest(trial, key, axis)) for key, axis in self.axes.items()}

    def take(self, trial: optuna.Trial) -> None:
        """Claim a point for this process, by a lock that ends with the process, however it ends."""
        self._held = FileLock(self._lock_file(trial.number))
        self._held.acquire()
        trial.set_user_attr("where", self._where)

    def release(self) -> None:
        """Give up the claim; call it once the result is in the study."""
        if self._held is not None:
            self._held.release()
            Path(self._held.lock_file).unlink(missing_ok=True)
            self._held = None

    def requeue_dead(self) -> int:
        """Queue again the points that processes of this folder had begun when they died; returns how many."""
        dead = 0
        with self.lock:
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                where = trial.user_attrs.get("where")
                if where is None and self.sweep.storage is None and trial.datetime_start is not None:
                    mine = time.time() - trial.datetime_start.timestamp() > _STARTING
                else:
                    mine = where == self._where
                if mine and is_free(self._lock_file(trial.number)):  # its process is dead
                    self.queue_again(trial)
                    self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                    dead += 1
        return dead

    def _lock_file(self, number: int) -> Path:
        return self._locks / f"{number:04d}.lock"

    def queue_again(self, trial: FrozenTrial) -> None:
        """Queue the same point once more. Call it before giving the trial up, so that a kill in between loses nothing.

        A second call for the same trial does nothing.
        """
        if any(t.user_attrs.get("repeats") == trial.number for t in self.study.get_trials(deepcopy=False)):
            return
        if "point" in trial.user_attrs:
            params = trial.params or trial.system_attrs.get("fixed_params", {})
            attributes = {"point": trial.user_attrs["point"], "repeats": trial.number}
            self.study.enqueue_trial(params, user_attrs=attributes)


def _suggest(trial: optuna.Trial, key: str, axis: Axis) -> Any:
    if isinstance(axis, Choices):
        return trial.suggest_categorical(key, [encode(axis, value) for value in axis.values])
    if axis.integers:
        return trial.suggest_int(key, int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))
    return trial.suggest_float(key, axis.low, axis.high, log=axis.log, step=axis.step)


def encode(axis: Axis, value: Any) -> Any:
    """A value as an Optuna parameter: lists and sections, which Optuna does not know, as JSON."""
    return json.dumps(value) if isinstance(axis, Choices) and isinstance(value, list | dict) else value


def decode(axis: Axis, param: Any) -> Any:
    """The value that `encode` made `param` from."""
    if isinstance(axis, Choices):
        return next(value for value in axis.values if encode(axis, value) == param)
    return param


def _pruner(sweep: Sweep) -> optuna.pruners.BasePruner:
    if sweep.prune is None:
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(
        n_startup_trials=sweep.prune.trials, n_warmup_steps=round(100 * sweep.prune.after) - 1
    )


def _mend(path: Path) -> None:
    """Cut off a last line that a power cut left unfinished: Optuna cannot read past it."""
    if path.is_file() and (text := path.read_bytes()) and not text.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(text.rfind(b"\n") + 1)


class _JournalLock(JournalFileOpenLock):
    """A lock of the kernel's, which ends with its holder. Optuna's own is a link beside the journal, which stays."""

    def __init__(self, path: Path):
        self._lock = FileLock(path)

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


@contextmanager
def _storage_errors(storage: str) -> Iterator[None]:
    """Whatever the storage's library raises, in one line and without the password of a URL."""
    try:
        yield
    except (UserError, OSError):
        raise
    except ImportError as error:  # Optuna's, which does not say what is missing
        missing = getattr(error.__cause__ or error.__context__, "name", None)
        driver = {"psycopg": "psycopg[binary]", "MySQLdb": "mysqlclient"}.get(missing or "", missing)
        wanted = f"pip install '{driver}'" if driver else "install it"
        raise UserError(f"the storage {_hidden(storage)} needs its database's driver: {wanted}") from None
    except Exception as error:  # SQLAlchemy's, the database driver's, Optuna's: they share no base
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(f"cannot open the storage {_hidden(storage)}: {_hidden(reason)}") from None


def _hidden(url: str) -> str:
    """A URL, or a message with one in it, without the password."""
    return re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:***@", url)
