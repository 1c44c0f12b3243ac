"""One optimizer step, compiled: loss, gradients over micro-batches, update."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from mlx_autoresearch.kernels.operation import resolved

from . import loss_scale
from .model import GPT
from .optimizer import MuonAdamW


def make_step(model: GPT, optimizer: MuonAdamW, accumulation_steps: int = 1) -> Callable[[Iterator], mx.array]:
    """A compiled optimizer step: takes an iterator of (inputs, targets) pairs, returns the mean loss, evaluated.

    Every micro-batch is evaluated before the next is built, so that memory does not grow with `accumulation_steps`. In
    float16 the loss is scaled, and a step whose gradients overflow is skipped: see loss_scale.py. Where kernels run in
    the simulator nothing is compiled: it needs values at once.
    """
    scaled = model.compute_dtype == mx.float16
    if scaled:
        loss_scale.begin(model, optimizer)
    state = [model.state, optimizer.state]
    simulated = "simulator" in (resolved(model.kernels), resolved(optimizer.kernels))
    compiled = (lambda function: function) if simulated else partial(mx.compile, inputs=state, outputs=state)

    def mean_loss(x: mx.array, y: mx.array) -> mx.array:
        scale = loss_scale.loss_scale(optimizer.state)
        loss = model.loss(x, y) if scale is None else model.loss(x, y, scale)
        return loss / accumulation_steps

    loss_and_grad = nn.value_and_grad(model, mean_loss)

    def apply(grads: dict) -> None:
        if scaled:
            loss_scale.update_unless_overflowed(model, optimizer, grads)
        else:
            optimizer.update(model, grads)

    @compiled
    def whole(x: mx.array, y: mx.array) -> mx.array:
        loss, grads = loss_and_grad(x, y)
        apply(grads)
        return loss

    @compiled
    def micro(x: mx.array, y: mx.array, loss_sum: mx.array, grad_sum: dict) -> tuple[mx.array, dict]:
        loss, grads = loss_and_grad(x, y)
        return loss_sum + loss, tree_map(mx.add, grad_sum, grads)

    update = compiled(apply)

    def step(batches: Iterator) -> mx.array:
        if accumulation_steps == 1:
            loss = whole(*next(batches))
        else:
            loss = mx.array(0.0)
            grads = tree_map(mx.zeros_like, model.trainable_parameters())
            for _ in range(accumulation_steps):
                x, y = next(batches)
                loss, grads = micro(x, y, loss, grads)
                mx.eval(loss, grads)
            update(grads)
        mx.eval(loss, state)
        return loss

    return step
