"""Newton-Schulz orthogonalisation by hand-written kernels: two products of symmetric matrices, computed by halves."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from mlx_autoresearch.kernels.launch import launch
from mlx_autoresearch.kernels.operation import Language
from mlx_autoresearch.simulator.arrays import dtype_name
from mlx_autoresearch.simulator.signature import SMALL

from ..shapes import check_float


def newton_schulz_steps(
    x: mx.array, coefficients: Sequence[tuple[float, float, float]], *, implementation: Language
) -> mx.array:
    """X <- aX + (bA + cA²)X with A = XXᵀ on each matrix of (K, m, n), once for each (a, b, c) of `coefficients`.

    x: float32, float16 or bfloat16, which the result has too. Sums are taken in float32, with one rounding for each of
    the three matrices of a step: A = X Xᵀ (or Xᵀ X, the smaller), B = bA + cA², X = aX + BX (or aX + XB). Not
    differentiable. Raises ValueError unless x has three axes, none empty, and such a dtype.
    """
    if x.ndim != 3 or x.size == 0:
        raise ValueError(f"[newton_schulz] expected matrices (K, m, n), none empty, got {x.shape}")
    check_float("newton_schulz", x.dtype)
    K, m, n = x.shape
    side, N = min(m, n), max(K, -(-SMALL // min(m, n) ** 2))
    if N > K:  # zero matrices, which stay zero: the kernels take no array of fewer than SMALL elements
        x = mx.concatenate([x, mx.zeros((N - K, m, n), x.dtype)])
    name = dtype_name(x.dtype)
    for a, b, c in coefficients:
        (A,) = launch("newton_schulz_gram", implementation, {"X": x}, N=N, m=m, n=n, dtype=name)
        (B,) = launch("newton_schulz_polynomial", implementation, {"A": A}, N=N, n=side, b=b, c=c, dtype=name)
        (x,) = launch("newton_schulz_combination", implementation, {"X": x, "B": B}, N=N, m=m, n=n, a=a, dtype=name)
    return x[:K]
