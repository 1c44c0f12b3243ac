"""Runs one trial of a candidate within limits, or its model once more on other text, and watches changed code."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlx_autoresearch.errors import GPUInterrupted, MetricRefused
from mlx_autoresearch.ledger.files import CODE, SCRATCH
from mlx_autoresearch.ledger.held import make_own_folder, remove
from mlx_autoresearch.ledger.ledger import Trial
from mlx_autoresearch.machine.disk import disk_error
from mlx_autoresearch.metric.bits import DocumentBits
from mlx_autoresearch.plain_text import one_line
from mlx_autoresearch.sandbox.environment import temporary_folder
from mlx_autoresearch.trials.clock import DISK, INTERRUPTED, Event
from mlx_autoresearch.trials.limits import Limits, default_memory_mb
from mlx_autoresearch.trials.trial import Say, TrialFailed

from .candidate import Candidate
from .guard.integrity import Trespass, installed_code_hash, watched
from .home import Search
from .view import View

_TIMES, _SLACK_SECONDS = 3, 60  # what a trial may take: so many times the baseline's, and so much more

_ATTEMPTS = 3  # of a trial that a full disk has ended


def measure(search: Search, candidate: Candidate, seed: int, folder: Path, view: View) -> Trial:
    """One trial of `candidate` with `seed`, in the run folder `folder`/<seed>.

    A trial that a full disk has ended is repeated once there is room. Raises TrialFailed, of the kind "guard" where
    changed code has changed anything outside its run folder.
    """

    def say(event: Event) -> None:
        if event["event"] == "waited":
            search.waited_seconds += event["seconds"]
        view.progress(event)

    for attempt in range(1, _ATTEMPTS + 1):
        search.disks.wait()
        try:
            return _once(search, candidate, seed, folder, say)
        except (TrialFailed, OSError) as failure:
            full = disk_error(failure) or (isinstance(failure, TrialFailed) and failure.kind == DISK)
            if not full or attempt == _ATTEMPTS:
                raise
            view.say(f"{one_line(str(failure))}: this trial is repeated")
    raise AssertionError("the last attempt returns or raises")


def _once(search: Search, candidate: Candidate, seed: int, folder: Path, say: Say) -> Trial:
    run = folder / str(seed)
    make_own_folder(folder)
    remove(run)
    remove(run.with_name(f"{run.name}.txt"))
    try:
        with _code_of(search, candidate, folder) as code, watched(search, folder, code) if code else nullcontext():
            trial = search.run_trial(
                candidate.config,
                seed=seed,
                folder=run,
                code=code,
                limits=_limits(search),
                mark=search.mark,
                say=say,
            )
    except Trespass as trespass:
        end = f"; it ended with {trespass.__cause__}" if trespass.__cause__ else ""
        raise TrialFailed("guard", f"{trespass} changed outside the run's own folder{end}") from trespass
    return replace(trial, run=os.path.relpath(trial.run, search.home))


def text_bits(
    search: Search, candidate: Candidate, trial: Trial, documents: np.ndarray, folder: Path, view: View
) -> DocumentBits:
    """What the model of a finished `trial` needs for `documents` of the confirmation text.

    folder: of the experiment in hand. Work that macOS stops on the GPU is begun again once. Raises TrialFailed, of the
    kind "metric" where the logits cannot be scored, and "guard" as `measure` does.
    """

    def waiting(line: str) -> None:
        view.progress({"event": "waiting", "message": line})

    def attempt() -> DocumentBits:
        with (
            _code_of(search, candidate, folder) as code,
            watched(search, folder, code) if code else nullcontext(),
            temporary_folder(folder, SCRATCH) as scratch,
        ):
            return search.confirm(
                search.home / trial.run,
                code,
                candidate.config,
                _limits(search),
                scratch=scratch,
                mark=search.mark,
                documents=documents,
                say=waiting,
            )

    try:
        try:
            return attempt()
        except GPUInterrupted:
            return attempt()
    except GPUInterrupted as error:
        raise TrialFailed(INTERRUPTED, str(error)) from None
    except MetricRefused as error:
        raise TrialFailed("metric", str(error)) from None
    except Trespass as trespass:
        raise TrialFailed("guard", f"{trespass} changed outside the run's own folder") from trespass


@contextmanager
def _code_of(search: Search, candidate: Candidate, folder: Path) -> Iterator[Path | None]:
    """A snapshot of the candidate's code in `folder`, gone afterwards; None where it is the installed, trusted code."""
    if candidate.code is not None and candidate.code == installed_code_hash():
        yield None
        return
    code = folder / CODE
    remove(code)
    try:
        search.workspace.snapshot(candidate.commit, code)
        yield code
    finally:
        shutil.rmtree(code, ignore_errors=True)


def _limits(search: Search) -> Limits:
    """The configured limits, and once the baseline is known, a few times what it took.

    Not of what comes before its first step: on a GPU changed kernels are compiled and measured there, all of them.
    """
    limits = search.config.limits
    allowed = limits.model_copy(update={"memory_mb": limits.memory_mb or default_memory_mb()})
    baseline = next(iter(search.ledger.records()), None)
    if baseline is None:
        return allowed
    training = max(t.training_seconds for t in baseline.trials)
    overhead = max(t.total_seconds - t.training_seconds for t in baseline.trials)
    most = {
        "training_seconds": _SLACK_SECONDS + _TIMES * training,
        "evaluate_seconds": _SLACK_SECONDS + _TIMES * overhead,
    }
    return allowed.model_copy(update={name: min(getattr(allowed, name), value) for name, value in most.items()})
