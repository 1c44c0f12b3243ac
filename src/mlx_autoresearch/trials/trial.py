"""Runs one trial: trains a configuration, with the installed code or an untrusted snapshot of it, and scores it."""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlx_autoresearch.config.load import with_settings
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import GPUInterrupted, MetricRefused, OutOfMemory, from_mlx
from mlx_autoresearch.kernels.choice import interruptible
from mlx_autoresearch.ledger.files import SCRATCH
from mlx_autoresearch.ledger.held import remove
from mlx_autoresearch.ledger.ledger import Status, Trial
from mlx_autoresearch.machine.disk import says_full, trouble
from mlx_autoresearch.machine.lock import device_lock
from mlx_autoresearch.machine.standstill import Standstill
from mlx_autoresearch.plain_text import one_line, printable
from mlx_autoresearch.sandbox.command import Outcome, Running
from mlx_autoresearch.sandbox.environment import temporary_folder
from mlx_autoresearch.training.data import find_data
from mlx_autoresearch.training.files import CHECKPOINT, CONFIG, INFO, METRICS, SUMMARY
from mlx_autoresearch.training.run import Run
from mlx_autoresearch.training.weights import keep_weights_only, read_digest

from .clock import DISK, INTERRUPTED, PAUSED, Clock, Event
from .environment import training_confinement, trial_environment
from .limits import Limits, default_memory_mb
from .score import score_confined

Say = Callable[[Event], None]

_REJECTED = ("guard", "metric", "output", "budget")
_ATTEMPTS = 4  # of a trial during which the machine stood still
_FILES = (CONFIG, INFO, METRICS, CHECKPOINT, SUMMARY)  # of a run's folder
_LARGEST_BYTES = {CONFIG: 1 << 20, INFO: 1 << 20, METRICS: 64 << 20, SUMMARY: 1 << 20}  # parsing more would stop us
_POLL_SECONDS = 0.05  # between two looks at a training
_LAST_EVENTS_SECONDS = 5.0  # for the pipe's end: where the supervisor was killed, a survivor may hold it open
_SHOWN_CHARACTERS = 4000  # of the end of the output


class TrialFailed(Exception):
    """A trial without a result.

    kind: "out of memory", "nan", "exception", "setup", "no checkpoint", "timeout"; the machine's fault: "gpu" (macOS
    stopped the work on the GPU, twice), "pause" (it stood still), "disk" (it took no more); or for a violated rule
    "guard", "metric", "output", "budget". detail: printable; its first line says what happened.
    """

    def __init__(self, kind: str, detail: str):
        super().__init__(f"{kind}: {one_line(detail)}")
        self.kind, self.detail = kind, printable(detail)


def status_of(kind: str) -> Status:
    """The ledger's status for a failure of this kind."""
    return "timeout" if kind == "timeout" else "rejected" if kind in _REJECTED else "crash"


def run_trial(
    config: Config,
    *,
    seed: int,
    folder: Path,
    code: Path | None,
    limits: Limits,
    mark: str = "trial",
    say: Say = lambda event: None,
) -> Trial:
    """Train `config` with `seed` into the new run folder `folder`, and score it on the validation split.

    code: None for the installed recipe, in one process that also scores; or a snapshot of the editable files, which is
    trained in one confined process, turned into logits in two others, and scored here.
    mark: of the trial's processes; see sandbox/processes.py.
    say: told every event of the training, in the calling thread. Where it falls behind, it misses old events; the
    training does not wait for it. What it raises ends the training and is raised here: it is not the trial's failure.

    What the training printed goes into FOLDER.txt. Waits while another process of this machine trains; that time does
    not count. A trial that macOS interrupts on the GPU is repeated once, from its start; and one that fails, or trains
    for less time, because the machine stood still, a few times. Raises TrialFailed.
    """
    attempt = 0
    while True:
        attempt += 1
        with Standstill() as standstill:
            try:
                return _run_once(
                    config, seed=seed, folder=folder, code=code, limits=limits, mark=mark, say=say,
                    seen=standstill if attempt > 1 else None,
                )  # fmt: skip
            except TrialFailed as failed:
                failure = failed
        if standstill.seconds and failure.kind != INTERRUPTED:
            failure = TrialFailed(PAUSED, f"the machine stood still for {standstill.seconds:.1f} s ({failure})")
        most = _ATTEMPTS if standstill.seconds else 2
        if failure.kind not in (INTERRUPTED, PAUSED) or attempt >= most:
            raise failure
        say({"event": "again", "message": f"{one_line(failure.detail, 1000)}; this trial is repeated"})
        remove(folder)


def _run_once(
    config: Config,
    *,
    seed: int,
    folder: Path,
    code: Path | None,
    limits: Limits,
    mark: str,
    say: Say,
    seen: Standstill | None,
) -> Trial:
    """seen: where given, a training that stood still is taken as it is, unless this process has seen a standstill."""
    config = with_settings(config, {"train.seed": seed, "train.checkpoint_every": None}, "the trial")
    folder = folder.absolute()
    with device_lock(lambda line: say({"event": "waiting", "message": line})) as waited:
        if waited:
            say({"event": "waited", "seconds": waited})
        started = time.monotonic()
        with temporary_folder(folder.parent, SCRATCH) as scratch:
            run = folder if code is None else scratch / "run"
            clock, outcome = _train(config, run, code, limits, mark, scratch, say)
            folder.with_name(f"{folder.name}.txt").write_text(outcome.output, encoding="utf-8")
            if outcome.returncode:
                _check_disk(scratch, outcome)
            _check_outcome(outcome, clock, limits, limits.wall_seconds(config, score=code is None), confined=bool(code))
            if code is not None:
                _take_over(run, folder, config, limits)
        measured = _measured(
            folder, config, clock, outcome, changed=code is not None, paused=seen is not None and not seen.seconds
        )
        summary = read_summary(folder) | measured
        if code is not None:
            summary |= _score(folder, code, config, limits, mark=mark)
        Run(folder).save_summary(summary)
    return Trial(
        seed=seed,
        val_bpb=summary["val_bpb"],
        steps=clock.steps,
        tokens=clock.steps * config.train.total_batch_size,
        training_seconds=summary["training_seconds"],
        total_seconds=time.monotonic() - started,
        peak_memory_mb=summary["peak_memory_mb"],
        num_params_M=summary["num_params_M"],
        run=str(folder),
    )


def _train(
    config: Config, run: Path, code: Path | None, limits: Limits, mark: str, scratch: Path, say: Say
) -> tuple[Clock, Outcome]:
    """Train in a process of its own, to its end."""
    clock = Clock()
    events, write = os.pipe()
    reader = threading.Thread(target=clock.read, args=(events,), daemon=True)
    reader.start()
    argv = [sys.executable, "-P", "-m", "mlx_autoresearch.trials.child", "train", str(run)]
    argv.append(json.dumps(config.model_dump(mode="json")))
    confinement = None
    if code is None:
        argv += ["", "", "1"]
    else:
        data = find_data(config)
        argv += [str(data.path.absolute()), str(code.absolute()), "0"]
        confinement = training_confinement(config, data, code, scratch)
    with (
        interruptible(),
        Running(
            [*argv, str(write)],
            cwd=scratch,
            env=trial_environment(scratch, confined=code is not None),
            seconds=limits.wall_seconds(config, score=code is None),
            memory_mb=limits.memory_mb,
            confinement=confinement,
            mark=mark,
            keep=[write],
        ) as running,
    ):
        while running.alive:
            for event in clock.new_events():
                say(event)
            time.sleep(_POLL_SECONDS)
        outcome = running.wait()
    reader.join(_LAST_EVENTS_SECONDS)
    for event in clock.new_events():
        say(event)
    return clock, outcome


def _take_over(run: Path, folder: Path, config: Config, limits: Limits) -> None:
    """Put the run folder that an untrusted training wrote in its place, with our configuration in it.

    Without files that are none of a run's. Raises TrialFailed for what is no file, or too large: a checkpoint, where
    the memory that its training may take does not hold it.
    """
    check_folder(run)
    largest = _LARGEST_BYTES | {CHECKPOINT: (limits.memory_mb or default_memory_mb()) * 2**20}
    for path in run.iterdir():
        if path.name not in _FILES:
            path.unlink()
        elif path.stat().st_size > largest[path.name]:
            raise TrialFailed("output", f"left {path.stat().st_size:,} bytes in {path.name}")
    run.rename(folder)
    Run(folder).save_config(config)


def _measured(
    folder: Path, config: Config, clock: Clock, outcome: Outcome, *, changed: bool, paused: bool
) -> dict[str, Any]:
    """A summary's entries that do not take the training's word: by our clock, and from the checkpoint.

    changed: the code was, and of the checkpoint only the weights stay, which alone are scored. paused: take the result
    of a training that stood still, if that was not longer than its budget bears. Raises TrialFailed where it trained
    more than it may, or its checkpoint is not what its last step left.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise TrialFailed("no checkpoint", "the training ended without a checkpoint")
    least = path.stat().st_size / 2**20  # weights and the optimizer's state lie in memory during a step
    started = time.monotonic()
    try:
        weights, parameters = keep_weights_only(path) if changed else read_digest(path)
    except ValueError as error:
        raise TrialFailed("no checkpoint", f"the checkpoint cannot be read: {error}") from None
    excess, pause = clock.beyond_budget(config, time.monotonic() - started), clock.pause(config)
    if pause and (excess or not paused):
        raise TrialFailed(
            PAUSED, f"the machine stood still for {pause:.1f} s of a training of {config.train.time_budget:g} s"
        )
    if excess:
        raise TrialFailed("budget", excess)
    if weights != clock.weights:
        raise TrialFailed("guard", "the checkpoint does not hold the weights that the last step left")
    tokens = clock.steps * config.train.total_batch_size
    measured = {"num_steps": clock.steps, "total_tokens_M": tokens / 1e6, "num_params_M": parameters / 1e6}
    measured["training_seconds"] = clock.training_seconds
    told = read_summary(folder)["peak_memory_mb"]
    return measured | {"peak_memory_mb": told if told >= least else max(least, outcome.peak_mb)}


def _score(folder: Path, code: Path, config: Config, limits: Limits, *, mark: str) -> dict[str, Any]:
    """The metric's entries of the summary of a run whose code is not trusted; nothing else of its training is left."""
    try:
        with temporary_folder(folder.parent, SCRATCH) as scratch:
            return score_confined(folder, code, config, limits, scratch=scratch, mark=mark)
    except MetricRefused as error:
        raise TrialFailed("metric", str(error)) from None
    except GPUInterrupted as error:
        raise TrialFailed(INTERRUPTED, str(error)) from None
    except (MemoryError, RuntimeError) as error:
        reported = from_mlx(error)
        if not isinstance(reported, GPUInterrupted | OutOfMemory):
            raise
        kind = INTERRUPTED if isinstance(reported, GPUInterrupted) else "out of memory"
        raise TrialFailed(kind, f"while its logits were scored: {reported}") from None


def _check_outcome(outcome: Outcome, clock: Clock, limits: Limits, seconds: float, *, confined: bool) -> None:
    """Raise TrialFailed for a training that did not end by itself and well."""
    if outcome.ended == "timeout":
        raise TrialFailed("timeout", f"not finished after {seconds:.0f} s; killed")
    if outcome.ended == "memory":
        raise TrialFailed("out of memory", f"took {outcome.peak_mb:,.0f} MiB of {limits.memory_mb:,.0f}; killed")
    if outcome.ended == "output":
        raise TrialFailed("output", "printed without end; killed")
    if outcome.ended != "exit":
        raise TrialFailed("guard", outcome.trouble or "it was stopped")
    if outcome.leftovers and confined:
        raise TrialFailed("guard", f"left {outcome.leftovers} processes running; killed")
    if outcome.returncode == 0:
        return
    if clock.trouble:
        raise TrialFailed(clock.trouble["kind"], clock.trouble["detail"])
    last = outcome.output.strip()[-_SHOWN_CHARACTERS:]
    if outcome.returncode == -9:
        raise TrialFailed("out of memory", "killed by the system, most likely for want of memory")
    if "bad_alloc" in last or "MemoryError" in last or "out of memory" in last:
        raise TrialFailed("out of memory", last.split("\n")[-1])
    code = outcome.returncode or 0
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    raise TrialFailed("exception", (last.split("\n")[-1] or how) + "\n" + last)


def _check_disk(folder: Path, outcome: Outcome) -> None:
    """Raise TrialFailed for a training that ended while the disk took no more, or because it did not."""
    if (full := trouble(folder)) or says_full(outcome.output):
        raise TrialFailed(DISK, full or f"a disk took no more\n{outcome.output.strip()[-_SHOWN_CHARACTERS:]}")


def check_folder(folder: Path) -> None:
    """Raise TrialFailed where a run folder is none, or holds anything but files: we must not write through a link."""
    try:
        other = folder.is_symlink() or any(path.is_symlink() or not path.is_file() for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise TrialFailed("no checkpoint", f"the training left no folder of a run: {error.strerror}") from None
    if other:
        raise TrialFailed("guard", "the run's folder holds something else than files")


def read_summary(folder: Path) -> dict[str, Any]:
    """A run folder's summary.json. Raises TrialFailed where it is missing, or a number that we use is not finite."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        for name in ("num_steps", "training_seconds", "peak_memory_mb", "num_params_M"):
            if not math.isfinite(summary[name]):
                raise ValueError(name)
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise TrialFailed("no checkpoint", f"the training left no summary: {error}") from None
    return summary
