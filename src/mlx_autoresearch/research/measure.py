"""Runs a candidate's trials within limits, and watches those that run changed code."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from mlx_autoresearch.ledger.ledger import Trial
from mlx_autoresearch.trials.limits import Limits, default_memory_mb
from mlx_autoresearch.trials.trial import TrialFailed

from .candidate import Candidate
from .guard.integrity import Trespass, installed_code_hash, watched
from .home import Search
from .view import View

_TIMES, _SLACK_SECONDS = 3, 60  # what a trial may take: so many times the baseline's, and so much more


@contextmanager
def trials_of(search: Search, candidate: Candidate, folder: Path, view: View) -> Iterator[Callable[[int], Trial]]:
    """A function of a seed that runs one trial of `candidate` into the run folder `folder`/<seed>.

    It raises TrialFailed, of the kind "guard" where changed code has changed anything outside its run folder. Changed
    code is a snapshot of the commit, taken here and gone afterwards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if candidate.code is not None and candidate.code == installed_code_hash():
        yield partial(_trial, search, candidate, folder, None, view)
        return
    code = folder / "code"
    shutil.rmtree(code, ignore_errors=True)
    try:
        search.workspace.snapshot(candidate.commit, code)
        yield partial(_trial, search, candidate, folder, code, view)
    finally:
        shutil.rmtree(code, ignore_errors=True)


def _trial(search: Search, candidate: Candidate, folder: Path, code: Path | None, view: View, seed: int) -> Trial:
    """code: None where it is the installed code, which is trusted."""
    run = folder / str(seed)
    shutil.rmtree(run, ignore_errors=True)
    try:
        with watched(search, folder, code) if code else nullcontext():
            trial = search.run_trial(
                candidate.config,
                seed=seed,
                folder=run,
                code=code,
                limits=_limits(search),
                mark=search.mark,
                say=view.progress,
            )
    except Trespass as trespass:
        end = f"; it ended with {trespass.__cause__}" if trespass.__cause__ else ""
        raise TrialFailed("guard", f"{trespass} changed outside the run's own folder{end}") from trespass
    return replace(trial, run=os.path.relpath(trial.run, search.home))


def _limits(search: Search) -> Limits:
    """The configured limits, and once the baseline is known, a few times what it took."""
    limits = search.config.limits
    allowed = limits.model_copy(update={"memory_mb": limits.memory_mb or default_memory_mb()})
    baseline = next(iter(search.ledger.records()), None)
    if baseline is None:
        return allowed
    training = max(t.training_seconds for t in baseline.trials)
    overhead = max(t.total_seconds - t.training_seconds for t in baseline.trials)
    most = {
        "startup_seconds": _SLACK_SECONDS + _TIMES * overhead,
        "training_seconds": _SLACK_SECONDS + _TIMES * training,
        "evaluate_seconds": _SLACK_SECONDS + _TIMES * overhead,
    }
    return allowed.model_copy(update={name: min(getattr(allowed, name), value) for name, value in most.items()})
