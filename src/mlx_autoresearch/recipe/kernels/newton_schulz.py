"""Newton-Schulz orthogonalisation by hand-written kernels: two products of symmetric matrices, computed by halves."""

from __future__ import annotations

import mlx.core as mx

from mlx_autoresearch.kernels.launch import FLOATS, launch
from mlx_autoresearch.kernels.operation import Language
from mlx_autoresearch.simulator.arrays import dtype_name
from mlx_autoresearch.simulator.signature import SMALL

from ..optimizer import POLAR_EXPRESS


def newton_schulz(g: mx.array, steps: int = 5, dtype: mx.Dtype = mx.float32, *, implementation: Language) -> mx.array:
    """Orthogonalise each matrix of (K, m, n): U Vᵀ of its singular value decomposition, approximately.

    As `optimizer.newton_schulz`, with sums in float32 and one rounding to `dtype` for each of the three matrices of a
    step: A = X Xᵀ (or Xᵀ X, the smaller), B = bA + cA², X = aX + BX (or aX + XB). Not differentiable. Raises ValueError
    unless g has three axes, none empty, and dtype is float32, float16 or bfloat16.
    """
    if g.ndim != 3 or g.size == 0:
        raise ValueError(f"[newton_schulz] expected matrices (K, m, n), none empty, got {g.shape}")
    if dtype not in FLOATS:
        raise ValueError(f"[newton_schulz] expected float32, float16 or bfloat16, got {dtype}")
    x = g.astype(mx.float32)
    frobenius = mx.sqrt(mx.square(x).sum(axis=(-2, -1), keepdims=True))
    x = (x / (frobenius * 1.02 + 1e-6)).astype(dtype)
    K, m, n = x.shape
    side, N = min(m, n), max(K, -(-SMALL // min(m, n) ** 2))
    if N > K:  # zero matrices, which stay zero: the kernels take no array of fewer than 8 elements
        x = mx.concatenate([x, mx.zeros((N - K, m, n), dtype)])
    name = dtype_name(dtype)
    for a, b, c in POLAR_EXPRESS[:steps]:
        (A,) = launch("newton_schulz_gram", implementation, {"X": x}, N=N, m=m, n=n, dtype=name)
        (B,) = launch("newton_schulz_polynomial", implementation, {"A": A}, N=N, n=side, b=b, c=c, dtype=name)
        (x,) = launch("newton_schulz_combination", implementation, {"X": x, "B": B}, N=N, m=m, n=n, a=a, dtype=name)
    return x[:K]
