"""Trains a configuration from its first step to its summary, resumes a run, and evaluates one again."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_autoresearch.config.keys import differing
from mlx_autoresearch.config.load import settings_of
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.data.prepared import PreparedData
from mlx_autoresearch.errors import GPUInterrupted, UserError, from_mlx
from mlx_autoresearch.machine import compiled
from mlx_autoresearch.machine.awake import awake
from mlx_autoresearch.machine.lock import device_lock
from mlx_autoresearch.methods import CURRENT
from mlx_autoresearch.metric.bits import Bpb
from mlx_autoresearch.recipe import interface
from mlx_autoresearch.recipe.settings import recipe_settings

from . import checkpoint
from .clock import Clock
from .compilation import Compilation
from .data import check_same_data, data_info, open_data
from .files import CHECKPOINT
from .fit import memory_warning
from .loop import loop
from .loss_watch import LossWatch
from .progress import Reporter, make_reporter
from .run import Run
from .scoring import score_model, score_model_as_reference, trained_model
from .setup import Training, compute_dtype, setup
from .speed import Peaks
from .stop import stop_requested
from .summary import describe, summarise
from .weights import digest, weights

# When a run is resumed; the rows of a step are the same in other micro-batches.
_MAY_CHANGE = ("train.checkpoint_every", "train.device_batch_size", "train.max_steps", "train.time_budget")


def train(
    config: Config, *, runs: str | Path = "runs", name: str = "train", reporter: Reporter | None = None
) -> dict[str, Any]:
    """Train a GPT on prepared data and return the summary, which is also in the run's folder under `runs`.

    Waits while another process of this machine trains. Raises UserError when the recipe refuses its settings, the data
    is not prepared or the folder cannot be written, LossExploded when the loss becomes NaN or explodes, MetricRefused
    when the model cannot be scored, and KeyboardInterrupt, after saving a checkpoint, when the process is told to stop.
    """
    clock = Clock(config.train, time.perf_counter())
    recipe_settings(config.recipe)  # wrong settings need not wait for the data
    data = open_data(config)
    reporter = reporter or make_reporter()
    with awake(reporter.say), device_lock(reporter.say) as waited, compiled.kept():
        clock.started += waited
        training = setup(config, data)
        run = Run.create(config, Path(runs), name, {"data": data_info(data)})
        return complete(training, clock, run, data, reporter)


def resume(path: str | Path, config: Config | None = None, *, reporter: Reporter | None = None) -> dict[str, Any]:
    """Continue a run from its checkpoint to the end of its budget, as if it had never stopped.

    config: as stored in the run, but for time_budget, max_steps or checkpoint_every. Raises what `train` raises.
    """
    started = time.perf_counter()
    run = Run.open(path)
    stored = run.config()
    config = config or stored
    _check_resumable(stored, config)
    run.methods().require_current(f"the run {run.path}")
    recipe_settings(config.recipe)
    data = open_data(config)
    check_same_data(run, data, "train", "val")
    reporter = reporter or make_reporter()
    with awake(reporter.say), device_lock(reporter.say) as waited, compiled.kept():
        clock = Clock(config.train, started + waited)
        training = setup(config, data)
        checkpoint.restore(run, training, clock)
        run.save_config(config)  # with its new length, so that the next one to resume it need not say it again
        return complete(training, clock, run, data, reporter)


def evaluate_run(path: str | Path, *, reference: bool = False) -> Bpb:
    """Repeat the final evaluation of a run from its checkpoint, to the same digits; also as the reference, if asked.

    Waits, and says so on standard error, while another process of this machine trains: it would take that one's time.
    """
    run = Run.open(path)
    config = run.config()
    replace(run.methods(), packing=CURRENT.packing).require_current(f"the run {run.path}")
    data = open_data(config)
    check_same_data(run, data, "val")
    with device_lock(lambda line: print(line, file=sys.stderr, flush=True)), compiled.kept():
        model = trained_model(run)
        bpb = score_model(model, config, data)
        return replace(bpb, reference_bpb=score_model_as_reference(model, config, data)) if reference else bpb


def complete(
    training: Training, clock: Clock, run: Run, data: PreparedData, reporter: Reporter, *, score: bool = True
) -> dict[str, Any]:
    """Train to the end of the budget, score unless told not to, and write the summary, which is returned.

    Without `score` the checkpoint is left to somebody else to evaluate: the metric's entries in the summary are None.
    Raises GPUInterrupted, which says how to go on, where macOS stops the work on the GPU.
    """
    with reporter, _interruption_explained(run):
        reporter.start(describe(training, run.path))
        peaks = Peaks.here(compute_dtype(training.config))
        with (
            stop_requested() as stop,
            Compilation(reporter) as compilation,
            closing(loop(training, clock, peaks.measured, compilation.seconds)) as records,
        ):
            every, saved_at = training.config.train.checkpoint_every, clock.training_seconds
            watch = LossWatch(training.config.data.vocab_size, run.path)
            first = clock.step + 1
            for record in records:
                compilation.end()  # nothing may run beside the steps that count
                if record["step"] == first and (warning := memory_warning(training.peak_memory)):
                    reporter.warn(warning)
                try:
                    _note(record, run, watch, clock, reporter)
                except OSError:  # nobody reads our output any more, as in `train | head`
                    checkpoint.save(run, training, clock)
                    raise _stopped(f"the output cannot be written: stopped after step {clock.step}", run) from None
                if stop():
                    break
                if every and clock.training_seconds - saved_at >= every:
                    saved_at = clock.training_seconds
                    checkpoint.save(run, training, clock)
            reporter.ended(digest(weights(training.model)))
            checkpoint.save(run, training, clock)
            if stop():
                raise _stopped(f"stopped after step {clock.step}", run)
        if clock.step == 1 and training.config.train.max_steps is None:
            reporter.warn(
                f"a step takes about {clock.step_seconds():.3g} s, so no second one fits into train.time_budget="
                f"{training.config.train.time_budget:g}: raise it, or lower train.total_batch_size"
            )
        if skipped := interface.skipped_steps(training.optimizer):
            reporter.say(f"{skipped} of {clock.step} steps skipped: their gradients overflowed float16")
        reporter.trained()
        mx.clear_cache()
        mx.reset_peak_memory()
        bpb = _score(training, run, data, reporter) if score else None
        summary = summarise(training, clock, peaks, bpb, run.path)
        run.save_summary(summary)
        reporter.finish(summary)
    return summary


@contextmanager
def _interruption_explained(run: Run) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reported = from_mlx(error)
        if not isinstance(reported, GPUInterrupted):
            raise
        raise GPUInterrupted(f"{reported}{_continue_with(run) if (run.path / CHECKPOINT).is_file() else ''}") from None


def _note(record: dict[str, Any], run: Run, watch: LossWatch, clock: Clock, reporter: Reporter) -> None:
    """A step goes to the log, to the watch over the loss and to the display, in this order."""
    run.log(record)
    warning = watch.see(record["step"], record["loss"], record["skipped_steps"])
    reporter.step(record, clock.remaining())
    if warning:
        reporter.warn(warning)


def _score(training: Training, run: Run, data: PreparedData, reporter: Reporter) -> Bpb:
    reporter.say("evaluating")
    try:
        return score_model(training.model, training.config, data)
    except KeyboardInterrupt:
        raise _stopped("stopped while evaluating", run) from None


def _stopped(what: str, run: Run) -> KeyboardInterrupt:
    return KeyboardInterrupt(what + _continue_with(run))


def _continue_with(run: Run) -> str:
    return f"; continue with `mlx-autoresearch train --resume {shlex.quote(str(run.path))}`"


def _check_resumable(stored: Config, config: Config) -> None:
    """Only the length of a run, and how often it is saved, may differ from what it was started with."""
    old, new = ({k: v for k, v in settings_of(c).items() if k not in _MAY_CHANGE} for c in (stored, config))
    if changed := differing(old, new):
        raise UserError(
            f"a resumed run keeps its configuration: only {', '.join(_MAY_CHANGE)} may change, "
            f"but {', '.join(changed)} differs"
        )
