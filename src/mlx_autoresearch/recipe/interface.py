"""All that trusted code asks of the recipe, with `settings.py`: what stands behind it, an experiment may change.

An experiment may change these functions too, as long as they keep their names, arguments and results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mlx.core as mx
import mlx.nn as nn

from mlx_autoresearch.config.settings import RecipeConfig
from mlx_autoresearch.kernels.operation import resolved

from . import loss_scale, schedule, step
from .model import GPT
from .muon import newton_schulz
from .optimizer import MuonAdamW, MuonGroup
from .settings import recipe_settings

Step = Callable[[Iterator[tuple[mx.array, mx.array]]], mx.array]


def make_model(config: RecipeConfig, dtype: mx.Dtype) -> GPT:
    """A freshly initialised model, its weights drawn from `mx.random`'s global state.

    dtype: that of activations and matrix products. Trusted code uses these of the model: `hidden` and `logits` (the
    metric), `parameters()` (the checkpoint), `parameter_counts()` and `flops_per_token()` (the summary), and `kernels`,
    which implementation its operations use and may be changed at any time. Raises UserError when the section `recipe:`
    holds something that `Settings` does not take.
    """
    return GPT(config.gpt, dtype, config.kernels, recipe_settings(config.recipe))


def make_optimizer(model: GPT, config: RecipeConfig) -> MuonAdamW:
    """The model's optimizer; `state`, a tree of arrays, is all that a checkpoint keeps of it."""
    optimizer = MuonAdamW.for_gpt(model, kernels=config.kernels, **config.optimizer.model_dump())
    optimizer.init(model.parameters())
    return optimizer


def make_step(model: GPT, optimizer: MuonAdamW, config: RecipeConfig) -> Step:
    """One optimizer step, compiled: takes the micro-batches that it needs, returns their mean loss in nats, evaluated.

    A micro-batch is a pair of token ids and targets, (B, T) int32 each.
    """
    return step.make_step(model, optimizer, config.accumulation_steps)


def skipped_steps(optimizer: MuonAdamW) -> int | None:
    """How many steps so far changed nothing, since their gradients overflowed float16; None in another precision."""
    return loss_scale.skipped_steps(optimizer.state)


def trace_step(model: GPT, optimizer: MuonAdamW, config: RecipeConfig) -> None:
    """Build every operation of a step, with its shapes, without computing anything or changing any state.

    Where kernels run in the simulator, which computes at once, without the backward pass.
    """
    rows = mx.zeros((config.train.device_batch_size, config.gpt.sequence_len), mx.int32)
    if resolved(model.kernels) == "simulator":
        model.loss(rows, rows)
    else:
        nn.value_and_grad(model, lambda model: model.loss(rows, rows))(model)
    for group in optimizer.groups:
        if isinstance(group, MuonGroup):
            momentum = optimizer.state["momentum_buffer"][group.names[0]]
            newton_schulz(momentum, group.ns_steps, optimizer.ns_dtype, implementation=optimizer.kernels)


def set_schedule(optimizer: MuonAdamW, config: RecipeConfig, *, progress: float, step: int) -> float:
    """Set what changes from step to step; returns the multiplier of the learning rates, for the log.

    progress: share of the budget that is used, 0 ... 1. step: optimizer steps done so far, skipped ones left out.
    """
    train = config.train
    multiplier = schedule.lr_multiplier(progress, train.warmup_ratio, train.warmdown_ratio, train.final_lr_frac)
    optimizer.set_schedule(
        lr_multiplier=multiplier,
        momentum=schedule.muon_momentum(step, *train.muon_momentum, train.muon_momentum_steps),
        weight_decay_multiplier=schedule.weight_decay_multiplier(progress),
    )
    return multiplier
