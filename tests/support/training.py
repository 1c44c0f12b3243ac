"""A small model trained step by step, as a parity fixture says, that tells which signs each update hangs on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlx_autoresearch.config.gpt import GPTConfig
from mlx_autoresearch.recipe.model import GPT
from mlx_autoresearch.recipe.optimizer import MuonAdamW, MuonGroup


def gpt(config: Mapping[str, Any], weights: Mapping[str, Any]) -> GPT:
    model = GPT(GPTConfig(**config), compute_dtype=mx.float32)
    model.load_reference_weights(dict(weights))
    return model


def numbers(tree: Any) -> dict[str, np.ndarray]:
    """The leaves of a tree as NumPy arrays, by their dotted names."""
    return {name: np.array(a) for name, a in tree_flatten(tree)}


class Training:
    """A model and its optimizer under a fixture's schedule.

    After each step `sign[name]` is the array whose signs the update of a parameter hangs on, `moved[name]` the update,
    and `otherwise[name]` Muon's parameter as it would be if all signs were the other way.
    """

    def __init__(self, meta: Mapping[str, Any], weights: Mapping[str, Any]):
        self.meta = meta
        self.model = gpt(meta["config"], weights)
        self.optimizer = MuonAdamW.for_gpt(self.model, **meta["optimizer"], ns_dtype=mx.float32)
        self.optimizer.init(self.model.parameters())
        self.losses: list[float] = []
        self.sign: dict[str, np.ndarray] = {}
        self.moved: dict[str, np.ndarray] = {}
        self.otherwise: dict[str, np.ndarray] = {}

    def parameters(self) -> dict[str, np.ndarray]:
        return numbers(self.model.parameters())

    def step(self, x: mx.array, y: mx.array, step: int) -> None:
        multiplier, decay = self.meta["lr_multiplier"][step], self.meta["muon_weight_decay"][step]
        self.optimizer.set_schedule(
            lr_multiplier=multiplier,
            momentum=self.meta["muon_momentum"][step],
            weight_decay_multiplier=decay / self.meta["optimizer"]["weight_decay"],
        )
        before = self.parameters()
        first = {name: np.array(m) == 0 for name, m in self.optimizer.state["exp_avg"].items()}
        loss, gradients = nn.value_and_grad(self.model, self.model.loss)(x, y)
        self.losses.append(loss.item())
        self.optimizer.update(self.model, gradients)
        after = self.parameters()

        # AdamW moves an element whose gradient is its first by the whole learning rate, whichever sign rounding gave.
        self.sign = {name: np.where(first[name], g, 1.0) for name, g in numbers(gradients).items() if name in first}
        self.moved = {name: after[name] - before[name] for name in before}
        for group in self.optimizer.groups:
            if isinstance(group, MuonGroup):
                for name in group.names:
                    p, q = before[name].astype(np.float64), after[name].astype(np.float64)
                    decayed = group.lr * multiplier * max(1.0, p.shape[0] / p.shape[1]) ** 0.5 * decay * p
                    did = (p - q) * p >= 0  # cautious weight decay: where it points the same way as the update
                    self.sign[name] = np.where(did, p - q - decayed, p - q)
                    self.otherwise[name] = np.where(did, q + decayed, q - decayed).astype(np.float32)

    def adopt(self, parameters: Mapping[str, np.ndarray], where: Mapping[str, np.ndarray]) -> None:
        """Take other parameters at some elements."""
        current = self.parameters()
        self.model.load_weights(
            [(name, mx.array(np.where(mask, parameters[name], current[name]))) for name, mask in where.items()],
            strict=False,
        )

    def toss(self, where: Mapping[str, np.ndarray], rng: np.random.Generator) -> None:
        """Let a coin decide Muon's signs at some elements; nudges turn those of AdamW often enough."""
        self.adopt(self.otherwise, {n: where[n] & (rng.random(where[n].shape) < 0.5) for n in self.otherwise})


def hangs_on_rounding(name: str, ours: Training, others: Sequence[Training]) -> np.ndarray:
    """The elements of a parameter whose last update had a sign that rounding could turn, or is lost in rounding.

    Such a sign is that of a number below four times the largest distance that nudged trainings have from it; such an
    update is one that they change by a percent, as AdamW's is where a gradient is no larger than its epsilon.
    """
    sign, moved = (
        np.max([np.abs(getattr(other, what)[name] - getattr(ours, what)[name]) for other in others], axis=0)
        for what in ("sign", "moved")
    )
    turns = np.abs(ours.sign[name]) < 4 * sign
    return turns if name in ours.otherwise else turns | (np.abs(ours.moved[name]) < 100 * moved)
