"""The training loop: one optimizer step after the other until the budget is spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import mlx.core as mx

from mlx_autoresearch.data.packing import Batch
from mlx_autoresearch.data.prefetch import Prefetcher
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.recipe import interface

from .clock import Clock
from .setup import Training
from .speed import mfu_percent
from .weights import weights

_KEPT, _ADDED = 0.9, 0.1  # of the smoothed loss, and to it, at every step; as in the reference


def loop(
    training: Training, clock: Clock, peak_flops: float, compiling: Callable[[], float | None]
) -> Generator[dict[str, Any], None, None]:
    """Train until the clock says that the budget is spent; yields a record of every step.

    When a record is yielded, `training` and `clock` stand after that step, and can be saved. Close the iterator when
    you leave it early: a thread makes batches ahead. peak_flops: the device's, for mfu_percent. compiling: asked after
    the first step for the seconds of it that went into compilation; None where nobody can tell.

    The record: step (1 for the first), progress (share of the budget before the step), loss (nats a token, mean over
    the step), smooth_loss, lr_multiplier, skipped_steps (so far, in float16; else None), seconds (of this step),
    training_seconds (charged so far), tokens_per_second, mfu_percent, and epoch of the latest micro-batch.
    """
    config, told = training.config, training.config.for_recipe()
    flops_per_token = training.model.flops_per_token()
    mx.reset_peak_memory()
    with Prefetcher(training.batches) as prefetcher:
        pairs = _Pairs(prefetcher, told.accumulation_steps)
        training.position = prefetcher.state_dict()
        while not clock.over():
            started = time.perf_counter()
            progress = clock.progress()
            pairs.asked.clear()
            done = clock.step - (interface.skipped_steps(training.optimizer) or 0)
            lr_multiplier = interface.set_schedule(training.optimizer, told, progress=progress, step=done)
            loss = float(training.step(pairs).item())  # type: ignore[arg-type]
            mx.eval(list(weights(training.model).values()))  # a step that leaves work undone is charged for it
            training.position = prefetcher.state_dict()
            seconds = time.perf_counter() - started
            clock.count(seconds, None if clock.compiled else _without_compilation(seconds, compiling(), pairs.asked))
            training.smooth_loss = _KEPT * training.smooth_loss + _ADDED * loss
            training.peak_memory = max(training.peak_memory, mx.get_peak_memory())
            tokens_per_second = config.train.total_batch_size / seconds
            yield {
                "step": clock.step,
                "progress": progress,
                "loss": loss,
                "smooth_loss": training.smooth_loss / (1 - _KEPT**clock.step),
                "lr_multiplier": lr_multiplier,
                "skipped_steps": interface.skipped_steps(training.optimizer),
                "seconds": seconds,
                "training_seconds": clock.training_seconds,
                "tokens_per_second": tokens_per_second,
                "mfu_percent": mfu_percent(flops_per_token, tokens_per_second, peak_flops),
                "epoch": pairs.epoch,
            }


def _without_compilation(seconds: float, compiling: float | None, asked: list[float]) -> float | None:
    """What a process's first step took but for compilation; None where nobody can tell.

    seconds: with it. compiling: of these. asked: when each of its micro-batches was asked for: the first compiles, and
    with the last goes the update.
    """
    known = [] if compiling is None else [max(0.0, seconds - compiling)]
    if len(asked) > 2:
        known.append((asked[-1] - asked[1]) / (len(asked) - 2) * len(asked))
    return min(known, default=None)


class _Pairs(Iterator[tuple[mx.array, mx.array]]):
    """Micro-batches as pairs of arrays, inputs and targets, (B, T) int32 each.

    epoch: of the latest. asked: when each of this step was asked for, by `time.perf_counter()`. Raises UserError when a
    step asks for more than `most`.
    """

    def __init__(self, batches: Iterator[Batch], most: int):
        self._batches, self._most = batches, most
        self.epoch = 1
        self.asked: list[float] = []

    def __next__(self) -> tuple[mx.array, mx.array]:
        if len(self.asked) == self._most:
            raise UserError(f"the recipe's step asked for more than its {self._most} micro-batches")
        self.asked.append(time.perf_counter())
        batch = next(self._batches)
        self.epoch = batch.epoch
        return mx.array(batch.inputs), mx.array(batch.targets)
