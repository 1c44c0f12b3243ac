"""Rotary embedding by hand-written kernels, alone and after the rms-norm of queries and keys; differentiable."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_autoresearch.kernels.launch import launch
from mlx_autoresearch.kernels.operation import Language
from mlx_autoresearch.machine.resident import constant
from mlx_autoresearch.simulator.arrays import dtype_name
from mlx_autoresearch.simulator.signature import SMALL

from ..autodiff import with_vjp
from ..frequencies import frequencies
from ..shapes import check_float


def rope(x: mx.array, *, implementation: Language) -> mx.array:
    """Rotary embedding: the pair (x[..., i], x[..., i + D/2]) at position t is turned by -t * 10000**(-2i/D).

    x: (B, T, H, D) with D even, in float32, float16 or bfloat16; positions are 0 ... T-1 in every row and head. Angles
    are exact to float32's rounding at any position. Returns x's shape and dtype. Raises ValueError when shape or dtype
    do not fit. Su et al., arXiv:2104.09864; the direction is the reference's.
    """
    _check("rope", x)
    return _rope(implementation)(x)


def norm_rope(x: mx.array, *, implementation: Language) -> mx.array:
    """rope(x / sqrt(mean(x**2) + eps)) in one pass, the mean over the last axis, eps float32's machine epsilon.

    x: (B, T, H, D) as for `rope`; the mean is taken in float32. Returns x's shape and dtype. Raises ValueError when
    shape or dtype do not fit. Zhang and Sennrich, arXiv:1910.07467, before Su et al., arXiv:2104.09864.
    """
    _check("norm_rope", x)
    return _norm_rope(implementation)(x)


def _check(operation: str, x: mx.array) -> None:
    if x.ndim != 4 or x.shape[-1] % 2 or 0 in x.shape:
        raise ValueError(f"[{operation}] expected (B, T, H, D) with D even and none of them 0, got {x.shape}")
    check_float(operation, x.dtype)


@lru_cache
def _rope(implementation: Language) -> Callable[[mx.array], mx.array]:
    def vjp(_x: mx.array, dy: mx.array, _y: mx.array) -> mx.array:
        return _rows("rope", implementation, 1, x=dy)

    @with_vjp(vjp)
    def function(x: mx.array) -> mx.array:
        return _rows("rope", implementation, -1, x=x)

    return function


@lru_cache
def _norm_rope(implementation: Language) -> Callable[[mx.array], mx.array]:
    def vjp(x: mx.array, dy: mx.array, _y: mx.array) -> mx.array:
        return _rows("norm_rope_backward", implementation, -1, x=x, dy=dy)

    @with_vjp(vjp)
    def function(x: mx.array) -> mx.array:
        return _rows("norm_rope_forward", implementation, -1, x=x)

    return function


def _rows(name: str, implementation: Language, direction: int, **inputs: mx.array) -> mx.array:
    """One launch of a kernel over the rows of (B, T, H, D)."""
    B, T, H, D = inputs["x"].shape
    # Heads for SMALL elements: MLX passes fewer in `constant` memory, which kernels do not take.
    least = -(-SMALL // (B * T * D))
    if least > H:
        inputs = {key: mx.pad(x, [(0, 0), (0, 0), (0, least - H), (0, 0)]) for key, x in inputs.items()}
    sizes: dict[str, Any] = {"B": B, "T": T, "H": max(H, least), "D": D, "dtype": dtype_name(inputs["x"].dtype)}
    power_of_two = (D // 2) & -(D // 2)  # the largest that divides D / 2
    N = min(4, power_of_two)
    sizes |= {"N": N, "LANES": min(32, power_of_two // N)}
    (y,) = launch(name, implementation, {**inputs, "frequencies": _frequencies(D, direction)}, **sizes)
    return y[:, :, :H] if least > H else y


@lru_cache
def _frequencies(D: int, direction: int) -> mx.array:
    """What pair i turns from one position to the next, in turns / 2**64, modulo a turn: (D/2,) of uint64."""
    turns = frequencies(D) / (2 * np.pi)  # float64: at position 65536 good to 1e-11 radians
    return constant(mx.array((turns * 2.0**64).astype(np.uint64) * np.array(direction).astype(np.uint64)))
