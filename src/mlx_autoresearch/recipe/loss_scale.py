"""Dynamic loss scaling, which float16 needs (Micikevicius et al., arXiv:1710.03740): gradients of a larger loss.

Below 6e-8 float16 rounds to 0, above 65,504 to infinity. Gradients are therefore computed of the loss times a scale,
and divided by it in float32, in which the parameters have them. A step whose gradients hold an infinity or NaN is
skipped, and the scale is halved; after 2,000 steps without one it is doubled. float32 and bfloat16 need no scale, and
have none.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map

from mlx_autoresearch.machine.resident import resident

from .optimizer import MuonAdamW

SECTION = "loss_scale"  # of an optimizer's state; training/run.py knows the name
FIRST, LEAST, MOST = 2.0**16, 1.0, 2.0**24  # powers of two: scaling by them rounds nothing
PATIENCE = 2000  # steps until it is doubled


def begin(model: nn.Module, optimizer: MuonAdamW) -> None:
    """Add to the optimizer's state, where it is not there yet, the first scale and counters: what a checkpoint keeps.

    scale: float32. good_steps: since the scale changed, in int32. skipped_steps: in all, in int32.
    """
    if not optimizer.state:
        optimizer.init(model.parameters())
    first = {"scale": mx.array(FIRST), "good_steps": mx.array(0), "skipped_steps": mx.array(0)}
    optimizer.state.setdefault(SECTION, first)


def loss_scale(state: dict[str, Any]) -> mx.array | None:
    """The scale in an optimizer's state, a float32 scalar; None where it has none."""
    return state[SECTION]["scale"] if SECTION in state else None


def skipped_steps(state: dict[str, Any]) -> int | None:
    """How many steps were skipped so far, by an optimizer's state; None where it has no scale."""
    return int(state[SECTION]["skipped_steps"].item()) if SECTION in state else None


def update_unless_overflowed(model: nn.Module, optimizer: MuonAdamW, gradients: dict) -> None:
    """`optimizer.update(model, gradients)` with gradients that were scaled, or nothing where they overflowed.

    After a skipped step the model and the optimizer's state are as before, but for the scale and its counters. No value
    is looked at here, so all of it can be compiled.
    """
    state = optimizer.state
    scaling = state[SECTION]
    parameters, before = tree_map(mx.array, (model.parameters(), state))  # objects that `+=` on the others leaves alone
    scale = resident(scaling["scale"])
    gradients = tree_map(lambda g: g / scale, gradients)
    flat: dict[str, mx.array] = dict(tree_flatten(gradients))  # type: ignore[arg-type]
    finite = resident(mx.stack([mx.isfinite(g).all() for g in flat.values()]).all())

    def chosen(new: mx.array, old: mx.array) -> mx.array:
        return mx.where(finite, new, old)

    optimizer.update(model, gradients)
    model.update(tree_map(chosen, model.parameters(), parameters))
    for section, entries in state.items():
        entries |= tree_map(chosen, entries, before[section])
    good = mx.where(finite, scaling["good_steps"] + 1, 0)
    double = good == PATIENCE
    factor = mx.where(finite, mx.where(double, 2.0, 1.0), 0.5)
    scaling["scale"] = mx.clip(factor * scaling["scale"], LEAST, MOST)
    scaling["good_steps"] = mx.where(double, 0, good)
    scaling["skipped_steps"] = scaling["skipped_steps"] + mx.where(finite, 0, 1)
