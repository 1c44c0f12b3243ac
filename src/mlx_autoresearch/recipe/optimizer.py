"""MuonAdamW: Muon (muon.py) for the matrices inside the blocks, AdamW for embeddings, head and scalars.

Pure update functions and a thin class round them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map_with_path

from mlx_autoresearch.config.settings import OptimizerConfig, TrainConfig
from mlx_autoresearch.kernels.operation import Implementation, measuring
from mlx_autoresearch.machine.device import default_compute_dtype
from mlx_autoresearch.machine.resident import resident

from .muon import muon_update
from .roles import Role, role_of

_DEFAULTS, _TRAIN = OptimizerConfig(), TrainConfig()
# The reference's constants (karpathy/autoresearch, train.py), which are no settings.
_EPS = 1e-10  # AdamW's, but for the scalars
_LR_WIDTH = 768  # n_embd at which the learning rates of embeddings and head are as given
_RESID_LR_SHARE = 0.01  # of scalar_lr: residual gains are sensitive
_X0_BETAS = (0.96, 0.95)  # more momentum for the skip from the embedding


@dataclass(frozen=True)
class AdamWGroup:
    """Parameters that share AdamW's settings; lr is the initial learning rate, in units of the parameter."""

    names: tuple[str, ...]
    lr: float
    betas: tuple[float, float] = _DEFAULTS.adam_betas
    eps: float = _EPS
    weight_decay: float = 0.0


@dataclass(frozen=True)
class MuonGroup:
    """Matrices of one shape, updated as a batch.

    lr is the spectral norm of one step on a wide matrix; an (m, n) matrix with m > n takes sqrt(m / n) of it.
    """

    names: tuple[str, ...]
    lr: float
    beta2: float = _DEFAULTS.muon_beta2
    weight_decay: float = 0.0
    ns_steps: int = _DEFAULTS.ns_steps


def adamw_update(
    p: mx.array,
    g: mx.array,
    exp_avg: mx.array,
    exp_avg_sq: mx.array,
    *,
    step: mx.array,
    lr: mx.array | float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> tuple[mx.array, mx.array, mx.array]:
    """One AdamW step (Loshchilov and Hutter, arXiv:1711.05101) on a parameter of any shape, in float32.

    step: 1 on the first call. Returns the new parameter, first and second moment.
    """
    beta1, beta2 = betas
    g = g.astype(mx.float32)
    exp_avg = beta1 * exp_avg + (1 - beta1) * g
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * mx.square(g)
    correction, rate = resident(1 - beta2**step), resident(lr / (1 - beta1**step))
    kept = resident(mx.array(1 - lr * weight_decay))
    denominator = mx.sqrt(exp_avg_sq / correction) + eps
    p = p * kept - rate * (exp_avg / denominator)
    return p, exp_avg, exp_avg_sq


class MuonAdamW:
    """Updates the parameters of a model by groups, with the interface of `mlx.optimizers`.

    groups: from `gpt_groups`, or your own; every trainable parameter belongs to exactly one.
    ns_dtype: dtype of the Newton-Schulz products; None takes the one in which the device is fast.
    kernels: which implementation of them, see `kernels.operation`.

    `state` holds arrays only, so it can enter `mx.compile` as inputs and outputs: moments, the step count, and the
    three scheduled scalars `lr_multiplier` (of every group), `momentum` and `weight_decay_multiplier` (of Muon).
    """

    def __init__(
        self,
        groups: Sequence[AdamWGroup | MuonGroup],
        ns_dtype: mx.Dtype | None = None,
        kernels: Implementation = "auto",
    ):
        if ns_dtype is None:
            ns_dtype = default_compute_dtype()
        self.groups = tuple(groups)
        self.ns_dtype = ns_dtype
        self.kernels: Implementation = kernels
        self.state: dict[str, Any] = {}

    @classmethod
    def for_gpt(
        cls, model: nn.Module, ns_dtype: mx.Dtype | None = None, kernels: Implementation = "auto", **settings: Any
    ) -> MuonAdamW:
        """The reference's groups for a `GPT`; `settings` are those of `gpt_groups`, all optional."""
        return cls(gpt_groups(model, **settings), ns_dtype, kernels)

    def init(self, parameters: dict) -> None:
        """Zero moments for a tree of parameters. Raises ValueError when groups and parameters do not match."""
        flat: dict[str, mx.array] = dict(tree_flatten(parameters))  # type: ignore[arg-type]
        grouped = [name for group in self.groups for name in group.names]
        if sorted(grouped) != sorted(flat):
            odd = sorted(set(grouped) ^ set(flat)) or sorted(n for n in set(grouped) if grouped.count(n) > 1)
            raise ValueError(f"[MuonAdamW] every parameter must be in exactly one group; check {odd}")
        exp_avg, exp_avg_sq, momentum_buffer, second_moment = {}, {}, {}, {}
        for group in self.groups:
            if isinstance(group, AdamWGroup):
                for name in group.names:
                    exp_avg[name] = mx.zeros(flat[name].shape)
                    exp_avg_sq[name] = mx.zeros(flat[name].shape)
                continue
            shapes = {flat[name].shape for name in group.names}
            if len(shapes) != 1 or len(next(iter(shapes))) != 2:
                raise ValueError(f"[MuonAdamW] a Muon group takes matrices of one shape, got {sorted(shapes)}")
            (m, n), K, first = shapes.pop(), len(group.names), group.names[0]
            momentum_buffer[first] = mx.zeros((K, m, n))
            second_moment[first] = mx.zeros((K, m, 1) if m >= n else (K, 1, n))
        # In place: a function that was compiled with this state must go on seeing it.
        self.state |= {
            "scalars": {
                "step": mx.array(0.0),
                "lr_multiplier": mx.array(1.0),
                "momentum": mx.array(_TRAIN.muon_momentum[1]),  # the end of the ramp, until a schedule is set
                "weight_decay_multiplier": mx.array(1.0),
            },
            "exp_avg": exp_avg,
            "exp_avg_sq": exp_avg_sq,
            "momentum_buffer": momentum_buffer,
            "second_moment": second_moment,
        }

    def set_schedule(self, *, lr_multiplier: float, momentum: float, weight_decay_multiplier: float) -> None:
        """The scheduled scalars of the next update, as arrays, so that no compiled function freezes them."""
        if not self.state:
            raise ValueError("[MuonAdamW] set_schedule comes after init(model.parameters()) or a first update")
        scalars = self.state["scalars"]
        scalars["lr_multiplier"] = mx.array(lr_multiplier)
        scalars["momentum"] = mx.array(momentum)
        scalars["weight_decay_multiplier"] = mx.array(weight_decay_multiplier)

    def update(self, model: nn.Module, gradients: dict) -> None:
        """Update the model's parameters in place; those without a gradient, the frozen ones, stay as they are."""
        model.update(self.apply_gradients(gradients, model.parameters()))

    def apply_gradients(self, gradients: dict, parameters: dict) -> dict:
        """The updated parameters as a tree of the same structure; moments and step count advance."""
        if not self.state:
            self.init(parameters)
        g: dict[str, mx.array] = dict(tree_flatten(gradients))  # type: ignore[arg-type]
        p: dict[str, mx.array] = dict(tree_flatten(parameters))  # type: ignore[arg-type]
        scalars = self.state["scalars"]
        scalars["step"] = scalars["step"] + 1
        with measuring():  # with kernels "auto", shapes that were never measured on this machine are
            for group in self.groups:
                if isinstance(group, AdamWGroup):
                    self._adamw(group, p, g)
                else:
                    self._muon(group, p, g)
        return tree_map_with_path(lambda name, _: p[name], parameters)

    def _adamw(self, group: AdamWGroup, p: dict[str, mx.array], g: dict[str, mx.array]) -> None:
        scalars, exp_avg, exp_avg_sq = (self.state[k] for k in ("scalars", "exp_avg", "exp_avg_sq"))
        for name in group.names:
            if name not in g:
                continue
            p[name], exp_avg[name], exp_avg_sq[name] = adamw_update(
                p[name],
                g[name],
                exp_avg[name],
                exp_avg_sq[name],
                step=scalars["step"],
                lr=group.lr * scalars["lr_multiplier"],
                betas=group.betas,
                eps=group.eps,
                weight_decay=group.weight_decay,
            )

    def _muon(self, group: MuonGroup, p: dict[str, mx.array], g: dict[str, mx.array]) -> None:
        scalars, buffers, second = (self.state[k] for k in ("scalars", "momentum_buffer", "second_moment"))
        first = group.names[0]
        updated, buffers[first], second[first] = muon_update(
            mx.stack([p[name] for name in group.names]),
            mx.stack([g[name] if name in g else mx.zeros_like(p[name]) for name in group.names]),
            buffers[first],
            second[first],
            lr=group.lr * scalars["lr_multiplier"],
            momentum=scalars["momentum"],
            beta2=group.beta2,
            weight_decay=group.weight_decay * scalars["weight_decay_multiplier"],
            ns_steps=group.ns_steps,
            ns_dtype=self.ns_dtype,
            implementation=self.kernels,
        )
        for name, matrix in zip(group.names, mx.split(updated, len(group.names)), strict=True):
            if name in g:
                p[name] = matrix.squeeze(0)  # updated[i] would be a gather


def gpt_groups(model: nn.Module, **settings: Any) -> list[AdamWGroup | MuonGroup]:
    """The reference's parameter groups for a `GPT`.

    settings: fields of `OptimizerConfig`, which has their defaults. Embedding and unembedding rates are those at width
    768 and scale by (n_embd / 768) ** -0.5. Raises ValueError for a parameter whose role is unknown, and for settings
    that the configuration would refuse.
    """
    s = OptimizerConfig(**settings)
    shapes = {name: p.shape for name, p in tree_flatten(model.parameters())}  # type: ignore[union-attr]
    of_role: dict[Role, list[str]] = {}
    matrices: dict[tuple[int, ...], list[str]] = {}
    for name, shape in shapes.items():
        role = role_of(name)
        if role is None or (role == "transformer_matrices" and len(shape) != 2):
            raise ValueError(f"[gpt_groups] no group for parameter {name} of shape {shape}")
        if role == "transformer_matrices":
            matrices.setdefault(shape, []).append(name)
        else:
            of_role.setdefault(role, []).append(name)
    width = (model.config.n_embd / _LR_WIDTH) ** -0.5  # type: ignore[union-attr]
    adamw: list[tuple[Role, float, tuple[float, float], float]] = [
        ("lm_head", s.unembedding_lr * width, s.adam_betas, _EPS),
        ("wte", s.embedding_lr * width, s.adam_betas, _EPS),
        ("value_embeds", s.embedding_lr * width, s.adam_betas, _EPS),
        ("resid_lambdas", s.scalar_lr * _RESID_LR_SHARE, s.adam_betas, s.scalar_eps),
        ("x0_lambdas", s.scalar_lr, _X0_BETAS, s.scalar_eps),
    ]
    groups: list[AdamWGroup | MuonGroup] = [
        AdamWGroup(tuple(of_role[role]), lr, betas, eps) for role, lr, betas, eps in adamw if role in of_role
    ]
    for _, names in sorted(matrices.items()):
        groups.append(MuonGroup(tuple(names), s.matrix_lr, s.muon_beta2, s.weight_decay, s.ns_steps))
    return groups
