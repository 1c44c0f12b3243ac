"""What is said of a run: before its first step, and at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_autoresearch.machine import device
from mlx_autoresearch.metric.bits import Bpb
from mlx_autoresearch.metric.score import scores
from mlx_autoresearch.recipe import interface

from .clock import Clock
from .setup import Training, compute_dtype, kernels_used
from .speed import Peaks, mfu_percent


def describe(training: Training, run: Path) -> dict[str, Any]:
    """What is about to be trained, for `Reporter.start`."""
    train = training.config.train
    return {
        "run": str(run),
        "device": f"{device.device_name()}, {str(compute_dtype(training.config)).removeprefix('mlx.core.')}",
        "parameters": training.model.parameter_counts()["total"],
        "tokens_per_step": train.total_batch_size,
        "time_budget": train.time_budget if train.max_steps is None else None,
        "max_steps": train.max_steps,
    }


def summarise(training: Training, clock: Clock, peaks: Peaks, bpb: Bpb | None, run: Path) -> dict[str, Any]:
    """The summary of a run that has ended; the metric's entries are None where it was not scored.

    Call it right after scoring: it reads MLX's peak of memory as that of the evaluation.
    """
    train, eval_peak_memory = training.config.train, mx.get_peak_memory()
    speed, flops = clock.tokens_per_second(), training.model.flops_per_token()
    peaks = peaks.checked(flops, speed)
    summary = {
        "val_bpb": None,
        "training_seconds": clock.training_seconds,
        "total_seconds": clock.total_seconds(),
        "peak_memory_mb": training.peak_memory / 2**20,
        "eval_peak_memory_mb": eval_peak_memory / 2**20,
        "mfu_percent": mfu_percent(flops, speed, peaks.measured),
        "published_mfu_percent": None if peaks.published is None else mfu_percent(flops, speed, peaks.published),
        "tokens_per_second": speed,
        "total_tokens_M": clock.step * train.total_batch_size / 1e6,
        "num_steps": clock.step,
        "skipped_steps": interface.skipped_steps(training.optimizer),
        "num_params_M": training.model.parameter_counts()["total"] / 1e6,
        "depth": training.config.gpt_config().n_layer,
        "kernels": kernels_used(training.kernels),
        "seed": train.seed,
        "packing_efficiency": training.batches.efficiency,
        "eval_tokens": None,
        "eval_share": None,
        "run": str(run),
    }
    return summary if bpb is None else summary | scores(bpb)
