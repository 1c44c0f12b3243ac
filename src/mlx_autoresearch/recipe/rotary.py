"""Rotary position embedding, alone and after the norm of queries and keys."""

from __future__ import annotations

from functools import lru_cache

import mlx.core as mx
import numpy as np

from mlx_autoresearch.kernels.operation import Implementation, Language, Operation, random_like

from . import fastmath
from .autodiff import with_vjp
from .frequencies import BASE, frequencies
from .norm import norm


def rope(x: mx.array, *, implementation: Implementation = "auto") -> mx.array:
    """Rotary embedding of (B, T, H, D): pairs (j, j + D/2), positions 0 ... T-1 in every row and head.

    Su et al., arXiv:2104.09864. implementation: see `kernels.operation`. Raises ValueError when it cannot run here.
    """
    return _ROPE(x, implementation=implementation)


def norm_rope(x: mx.array, *, implementation: Implementation = "auto") -> mx.array:
    """rope(norm(x)) of (B, T, H, D), as queries and keys need it: a rotation changes no norm, so either comes first."""
    return _NORM_ROPE(x, implementation=implementation)


def _composed_rope(x: mx.array) -> mx.array:
    # The reference turns by minus the position, hence the scale of -1.
    if fastmath.float32_on_cpu(x):  # where MLX composes it, with twice the passes over memory
        return _rope(x)
    y = mx.fast.rope(x.transpose(0, 2, 1, 3), x.shape[-1], traditional=False, base=BASE, scale=-1.0, offset=0)
    return y.transpose(0, 2, 1, 3)


def _composed_norm_rope(x: mx.array) -> mx.array:
    return _composed_rope(norm(x))


def _custom_rope(x: mx.array, *, language: Language) -> mx.array:
    from .kernels.rope import rope

    return rope(x, implementation=language)


def _custom_norm_rope(x: mx.array, *, language: Language) -> mx.array:
    from .kernels.rope import norm_rope

    return norm_rope(x, implementation=language)


def _rope_vjp(x: mx.array, g: mx.array, _: mx.array) -> mx.array:
    return _turn(g, 1.0)


@with_vjp(_rope_vjp)
def _rope(x: mx.array) -> mx.array:
    return _turn(x, -1.0)


def _exact_norm_rope(x: mx.array) -> mx.array:
    return _rope(norm(x))


# On Metal `mx.fast.rope` takes fast sines, whose error is up to 2**-13: kernels are judged by tables from float64.
_ROPE = Operation("rope", _composed_rope, _custom_rope, (0,), random_like, exact=_rope)
_NORM_ROPE = Operation("norm_rope", _composed_norm_rope, _custom_norm_rope, (0,), random_like, exact=_exact_norm_rope)


def _turn(x: mx.array, direction: float) -> mx.array:
    """Rotate by direction * position: x cos + (x with its halves swapped) sin, the sign being in the sine."""
    half = x.shape[-1] // 2
    cos, sin = _tables(x.shape[1], x.shape[-1], direction)
    return x * cos + mx.concatenate([x[..., half:], x[..., :half]], axis=-1) * sin


@lru_cache(maxsize=16)
def _tables(T: int, D: int, direction: float) -> tuple[mx.array, mx.array]:
    """cos and signed sin, (T, 1, D) float32, from angles in float64."""
    angle = np.arange(T)[:, None] * frequencies(D)
    cos, sin = np.cos(angle), direction * np.sin(angle)
    tables = (np.concatenate([cos, cos], axis=1), np.concatenate([-sin, sin], axis=1))
    return tuple(mx.array(t[:, None, :].astype(np.float32)) for t in tables)  # type: ignore[return-value]
