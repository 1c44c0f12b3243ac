"""The harness: runs a commit's trials within limits; its code, where untrusted, must leave everything else alone."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from mlx_autoresearch.config.keys import differing
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.ledger.ledger import Trial
from mlx_autoresearch.trials.limits import Limits, default_memory_mb
from mlx_autoresearch.trials.trial import TrialFailed

from .guard import rules
from .guard.integrity import surroundings
from .home import Storage
from .view import View

Runner = Callable[..., Trial]  # with the arguments of `runner.run_trial`


class Harness:
    """Runs trials with `run`, and shows their progress in `view`."""

    def __init__(self, storage: Storage, run: Runner, view: View):
        self._storage, self._run, self._view = storage, run, view

    @contextmanager
    def trials_of(self, commit: str, folder: Path) -> Iterator[Callable[[int], Trial]]:
        """A function of a seed that runs one trial of a commit into the run folder `folder`/<seed>.

        It raises TrialFailed. The commit's code is a snapshot, taken here and gone afterwards.
        """
        config = self._storage.config_at(commit)
        code = folder / "code"
        shutil.rmtree(code, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        self._storage.workspace.snapshot(commit, code)
        try:
            yield partial(self._trial, config, folder, None if rules.is_installed(code) else code)
        finally:
            shutil.rmtree(code, ignore_errors=True)

    def _trial(self, config: Config, folder: Path, code: Path | None, seed: int) -> Trial:
        """code: None where it is the installed code, which is trusted."""
        storage = self._storage
        run = folder / str(seed)
        shutil.rmtree(run, ignore_errors=True)
        before = rules.tree_hash(code) if code else ""
        outside = surroundings(storage) if code else {}
        trial = self._run(
            config,
            seed=seed,
            folder=run,
            code=code,
            limits=self._limits(),
            mark=storage.mark,
            say=self._view.progress,
        )
        if code and (rules.tree_hash(code) != before or differing(outside, surroundings(storage))):
            raise TrialFailed("guard", "files outside the run's own folder changed while it ran")
        return replace(trial, run=os.path.relpath(trial.run, storage.home))

    def _limits(self) -> Limits:
        """The configured limits, and once the baseline is known, a few times what it took."""
        limits = self._storage.config.limits
        allowed = limits.model_copy(update={"memory_mb": limits.memory_mb or default_memory_mb()})
        baseline = next(iter(self._storage.ledger.records()), None)
        if baseline is None:
            return allowed
        training = max(t.training_seconds for t in baseline.trials)
        overhead = max(t.total_seconds - t.training_seconds for t in baseline.trials)
        return allowed.model_copy(
            update={
                "startup_seconds": min(allowed.startup_seconds, 60 + 3 * overhead),
                "training_seconds": min(allowed.training_seconds, 60 + 3 * training),
                "evaluate_seconds": min(allowed.evaluate_seconds, 60 + 3 * overhead),
            }
        )


def measured(trials: list[Trial], started: float) -> dict[str, Any]:
    """A record's fields that trials decide: them, their mean val_bpb, the time now, and seconds since `started`.

    started: by `time.monotonic`.
    """
    values = [t.val_bpb for t in trials if t.val_bpb is not None]
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "trials": trials,
        "val_bpb": fmean(values) if values else None,
        "seconds": time.monotonic() - started,
    }
