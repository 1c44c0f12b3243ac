"""Rms-norm, alone and together with the sum that a residual stream takes before it."""

from __future__ import annotations

import mlx.core as mx

from mlx_autoresearch.kernels.operation import Implementation, Language, Operation, random_like

from . import fastmath
from .autodiff import with_vjp
from .shapes import check_residual

EPS = 1.1920929e-07  # float32 machine epsilon, what torch.rms_norm adds when given none


def norm(x: mx.array) -> mx.array:
    """x / sqrt(mean(x**2) + eps) over the last axis, without weights (Zhang and Sennrich, arXiv:1910.07467)."""
    return _norm(x) if fastmath.float32_on_cpu(x) else mx.fast.rms_norm(x, None, EPS)


def residual_norm(x: mx.array, y: mx.array, *, implementation: Implementation = "auto") -> tuple[mx.array, mx.array]:
    """s = x + y and norm(s): a residual stream that takes what a block adds, and what the next block sees of it.

    x, y: (..., C) of one dtype, the results' too. implementation: see `kernels.operation`. Raises ValueError when
    shapes or dtypes differ, or it cannot run here.
    """
    check_residual("residual_norm", x, y)
    return _RESIDUAL_NORM(x, y, implementation=implementation)


def mixed_norm(
    x: mx.array, y: mx.array, a: mx.array, b: mx.array, *, implementation: Implementation = "auto"
) -> tuple[mx.array, mx.array]:
    """s = a x + b y and norm(s), for learnt scalars a and b of shape (1,) in the dtype of x and y, (..., C).

    Differentiable in all four. implementation: see `kernels.operation`. Raises ValueError when shapes or dtypes do not
    fit, or it cannot run here.
    """
    check_residual("mixed_norm", x, y, a, b)
    return _MIXED_NORM(x, y, a, b, implementation=implementation)


def _composed_residual_norm(x: mx.array, y: mx.array) -> tuple[mx.array, mx.array]:
    s = x + y
    return s, norm(s)


def _composed_mixed_norm(x: mx.array, y: mx.array, a: mx.array, b: mx.array) -> tuple[mx.array, mx.array]:
    s = a * x + b * y
    return s, norm(s)


def _custom_residual_norm(x: mx.array, y: mx.array, *, language: Language) -> tuple[mx.array, mx.array]:
    from .kernels.residual_norm import residual_norm

    return residual_norm(x, y, implementation=language)


def _custom_mixed_norm(
    x: mx.array, y: mx.array, a: mx.array, b: mx.array, *, language: Language
) -> tuple[mx.array, mx.array]:
    from .kernels.residual_norm import mixed_norm

    return mixed_norm(x, y, a, b, implementation=language)


_RESIDUAL_NORM = Operation(
    "residual_norm", _composed_residual_norm, _custom_residual_norm, differentiable=(0, 1), example=random_like
)
_MIXED_NORM = Operation(
    "mixed_norm", _composed_mixed_norm, _custom_mixed_norm, differentiable=(0, 1, 2, 3), example=random_like
)


def _norm_vjp(x: mx.array, g: mx.array, y: mx.array) -> mx.array:
    return _reciprocal_rms(x) * (g - y * (fastmath.row_sum(g * y) * (1 / x.shape[-1])))


@with_vjp(_norm_vjp)
def _norm(x: mx.array) -> mx.array:
    """MLX composes the norm on a CPU, with twice the passes over memory that this takes."""
    return x * _reciprocal_rms(x)


def _reciprocal_rms(x: mx.array) -> mx.array:
    return mx.rsqrt(fastmath.row_sum(x * x) * (1 / x.shape[-1]) + EPS)
