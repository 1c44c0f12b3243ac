"""Rms-norm and rotary position embedding, alone and together as queries and keys need them."""

from __future__ import annotations

from functools import lru_cache

import mlx.core as mx
import numpy as np

from . import fastmath
from .autodiff import with_vjp
from .kernels.operation import Implementation, Language, Operation

_EPS = 1.1920929e-07  # float32 machine epsilon, what torch.rms_norm adds when given none


def norm(x: mx.array) -> mx.array:
    """x / sqrt(mean(x**2) + eps) over the last axis, without weights (Zhang and Sennrich, arXiv:1910.07467)."""
    return _norm(x) if _on_cpu(x) else mx.fast.rms_norm(x, None, _EPS)


def rope(x: mx.array, *, implementation: Implementation = "auto") -> mx.array:
    """Rotary embedding of (B, T, H, D): pairs (j, j + D/2), positions 0 ... T-1 in every row and head, base 10000.

    Su et al., arXiv:2104.09864. implementation: see `kernels.operation`. Raises ValueError when it cannot run here.
    """
    return _ROPE(x, implementation=implementation)


def norm_rope(x: mx.array, *, implementation: Implementation = "auto") -> mx.array:
    """rope(norm(x)) of (B, T, H, D), as queries and keys need it: a rotation changes no norm, so either comes first."""
    return _NORM_ROPE(x, implementation=implementation)


def _composed_rope(x: mx.array) -> mx.array:
    # The reference turns by minus the position, hence the scale of -1.
    if _on_cpu(x):
        return _rope(x)
    y = mx.fast.rope(x.transpose(0, 2, 1, 3), x.shape[-1], traditional=False, base=10000.0, scale=-1.0, offset=0)
    return y.transpose(0, 2, 1, 3)


def _composed_norm_rope(x: mx.array) -> mx.array:
    return _composed_rope(norm(x))


def _custom_rope(x: mx.array, *, language: Language) -> mx.array:
    from .kernels.rope import rope

    return rope(x, implementation=language)


def _custom_norm_rope(x: mx.array, *, language: Language) -> mx.array:
    from .kernels.rope import norm_rope

    return norm_rope(x, implementation=language)


def _example(x: mx.array) -> tuple[mx.array, ...]:
    return (mx.random.normal(x.shape, key=mx.random.key(0)).astype(x.dtype),)


_ROPE = Operation("rope", _composed_rope, _custom_rope, differentiable=(0,), example=_example)
_NORM_ROPE = Operation("norm_rope", _composed_norm_rope, _custom_norm_rope, differentiable=(0,), example=_example)


def _on_cpu(x: mx.array) -> bool:
    """MLX composes both operations on a CPU, with twice the passes over memory that these take."""
    return x.dtype == mx.float32 and mx.default_device() == mx.Device(mx.cpu)


def _norm_vjp(x: mx.array, g: mx.array, y: mx.array) -> mx.array:
    return _reciprocal_rms(x) * (g - y * (fastmath.row_sum(g * y) * (1 / x.shape[-1])))


@with_vjp(_norm_vjp)
def _norm(x: mx.array) -> mx.array:
    return x * _reciprocal_rms(x)


def _reciprocal_rms(x: mx.array) -> mx.array:
    return mx.rsqrt(fastmath.row_sum(x * x) * (1 / x.shape[-1]) + _EPS)


def _rope_vjp(x: mx.array, g: mx.array, _: mx.array) -> mx.array:
    return _turn(g, 1.0)


@with_vjp(_rope_vjp)
def _rope(x: mx.array) -> mx.array:
    return _turn(x, -1.0)


def _turn(x: mx.array, direction: float) -> mx.array:
    """Rotate by direction * position: x cos + (x with its halves swapped) sin, the sign being in the sine."""
    half = x.shape[-1] // 2
    cos, sin = _tables(x.shape[1], x.shape[-1], direction)
    return x * cos + mx.concatenate([x[..., half:], x[..., :half]], axis=-1) * sin


@lru_cache(maxsize=16)
def _tables(T: int, D: int, direction: float) -> tuple[mx.array, mx.array]:
    """cos and signed sin, (T, 1, D) float32, from angles in float64."""
    angle = np.arange(T)[:, None] * 10000.0 ** (-np.arange(0, D, 2) / D)
    cos, sin = np.cos(angle), direction * np.sin(angle)
    tables = (np.concatenate([cos, cos], axis=1), np.concatenate([-sin, sin], axis=1))
    return tuple(mx.array(t[:, None, :].astype(np.float32)) for t in tables)  # type: ignore[return-value]
