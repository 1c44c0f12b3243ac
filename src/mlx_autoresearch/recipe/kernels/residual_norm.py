"""The sum of a residual stream and its rms-norm by hand-written kernels, one pass over memory each way."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import mlx.core as mx

from mlx_autoresearch.kernels.launch import launch
from mlx_autoresearch.kernels.operation import Language
from mlx_autoresearch.machine.resident import constant
from mlx_autoresearch.simulator.arrays import dtype_name
from mlx_autoresearch.simulator.signature import SMALL

from ..autodiff import with_vjp
from ..shapes import check_float, check_residual


def residual_norm(x: mx.array, y: mx.array, *, implementation: Language) -> tuple[mx.array, mx.array]:
    """s = x + y and n = s / sqrt(mean(s**2) + eps), the mean over the last axis, eps float32's machine epsilon.

    x, y: (..., C) in float32, float16 or bfloat16, 8 elements at least; mean and sum are taken in float32. Returns s
    and n in x's shape and dtype. Raises ValueError when shapes or dtypes do not fit. Zhang and Sennrich,
    arXiv:1910.07467; custom_kernels/README.md has the gradient.
    """
    _check("residual_norm", x, y)
    s, n = _residual_norm(implementation)(x, y)
    return s, n


def mixed_norm(
    x: mx.array, y: mx.array, a: mx.array, b: mx.array, *, implementation: Language
) -> tuple[mx.array, mx.array]:
    """s = a x + b y and its rms-norm n, as `residual_norm` has it; differentiable in a and b too.

    x, y: as for `residual_norm`. a, b: (1,) in their dtype. Raises ValueError when shapes or dtypes do not fit.
    """
    _check("mixed_norm", x, y, a, b)
    s, n = _mixed_norm(implementation)(x, y, a, b)
    return s, n


def _check(operation: str, x: mx.array, y: mx.array, *gains: mx.array) -> None:
    check_float(operation, x.dtype)
    check_residual(operation, x, y, *gains)
    if x.size < SMALL:
        raise ValueError(f"[{operation}] expected (..., C) of at least {SMALL} elements, got {x.shape}")


@lru_cache
def _residual_norm(implementation: Language) -> Callable[..., Sequence[mx.array]]:
    """(x, y) -> [s, n]."""

    def vjp(_primals: Sequence[mx.array], cotangents: Sequence[mx.array], outputs: Sequence[mx.array]):
        (s, _), (ds, dn) = outputs, cotangents
        (dx,) = _rows("residual_norm_backward", implementation, s=s, ds=ds, dn=dn)
        return dx, dx

    @with_vjp(vjp)
    def function(x: mx.array, y: mx.array) -> Sequence[mx.array]:
        return _rows("residual_norm_forward", implementation, x=x, y=y, a=_one(x.dtype), b=_one(x.dtype))

    return function


@lru_cache
def _mixed_norm(implementation: Language) -> Callable[..., Sequence[mx.array]]:
    """(x, y, a, b) -> [s, n]."""

    def vjp(primals: Sequence[mx.array], cotangents: Sequence[mx.array], _outputs: Sequence[mx.array]):
        (x, y, a, b), (ds, dn) = primals, cotangents
        dx, dy, of_rows = _rows("mixed_norm_backward", implementation, x=x, y=y, a=a, b=b, ds=ds, dn=dn)
        da, db = mx.split(of_rows.sum(axis=0).astype(a.dtype), 2)
        return dx, dy, da, db

    @with_vjp(vjp)
    def function(x: mx.array, y: mx.array, a: mx.array, b: mx.array) -> Sequence[mx.array]:
        return _rows("residual_norm_forward", implementation, x=x, y=y, a=a, b=b)

    return function


@lru_cache
def _one(dtype: mx.Dtype) -> mx.array:
    return constant(mx.array([1.0], dtype))


def _rows(name: str, implementation: Language, **inputs: mx.array) -> list[mx.array]:
    """One launch of a kernel over the rows of (..., C); what has that shape is given back in it."""
    first = next(iter(inputs.values()))
    shape, C = first.shape, first.shape[-1]
    flat = {key: x.reshape(-1, C) if x.shape == shape else x for key, x in inputs.items()}
    rows = first.size // C
    sizes = {"rows": rows, "C": C, "N": math.gcd(C, 4), "dtype": dtype_name(first.dtype)}
    outputs = launch(name, implementation, flat, **sizes)
    return [output.reshape(shape) if output.shape == (rows, C) else output for output in outputs]
