"""Sliding-window attention by hand-written kernels, differentiable, in memory linear in T."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import mlx.core as mx

from mlx_autoresearch.kernels.launch import launch
from mlx_autoresearch.kernels.operation import Language
from mlx_autoresearch.simulator.arrays import dtype_name

from ..autodiff import with_vjp
from ..shapes import check_attention, check_float

HEAD_DIMS = (32, 64, 96, 128)
# For the gradients of k and v: one simdgroup for 16 keys, or two, each of whose threads needs fewer registers.
_DKDV = {"single": "flash_attention_dkdv", "pairs": "flash_attention_dkdv_pairs"}


def flash_attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    window: int | None = None,
    *,
    implementation: Language,
    variant: str | None = None,
) -> tuple[mx.array, mx.array]:
    """softmax(q kT / sqrt(D)) v, causal, for each head, and the log-sum-exp of each row of scores.

    q: (B, T, H, D). k, v: (B, T, H_kv, D) with H a multiple of H_kv; query head h reads key head h // (H / H_kv).
    D is 32, 64, 96 or 128; float32, float16 or bfloat16. window: w >= 0 keys before the query's own are visible; None
    means all of them. Returns out (B, T, H, D) in q's dtype and lse (B, H, T) in float32, natural logarithm, both
    differentiable in q, k and v. Products are summed in float32; the gradients do not depend on the order of threads.
    variant: "single" or "pairs", how many simdgroups share the gradients of 16 keys; None for two on Metal, else one.
    Raises ValueError when shapes, dtypes, window or variant do not fit.
    FlashAttention-2 (Dao, arXiv:2307.08691); custom_kernels/README.md has the mathematics.
    """
    check_attention("flash_attention", q, k, v, window)
    if q.shape[-1] not in HEAD_DIMS:
        raise ValueError(f"[flash_attention] expected head dim 32, 64, 96 or 128, got {q.shape[-1]}")
    check_float("flash_attention", q.dtype)
    unlimited = window is None or window >= q.shape[1] - 1
    if variant is None:
        variant = "pairs" if implementation == "metal" else "single"
    if variant not in _DKDV:
        raise ValueError(f"[flash_attention] variant must be one of {', '.join(_DKDV)}, got {variant!r}")
    out, lse = _function(-1 if unlimited else window, implementation, variant)(q, k, v)
    return out, lse


@lru_cache
def _function(window: int, implementation: Language, variant: str) -> Callable[..., Sequence[mx.array]]:
    """(q, k, v) -> [out, lse] with the three kernels; window -1: unlimited."""

    def vjp(primals: Sequence[mx.array], cotangents: Sequence[mx.array], outputs: Sequence[mx.array]):
        (q, k, v), (d_out, d_lse), (out, lse) = primals, cotangents, outputs
        sizes, given = _sizes(q, k, window), {"q": q, "k": k, "v": v, "d_out": d_out, "lse": lse}
        dq, delta = launch("flash_attention_dq", implementation, {**given, "out": out, "d_lse": d_lse}, **sizes)
        dk, dv = launch(_DKDV[variant], implementation, {**given, "delta": delta}, **sizes)
        return dq, dk, dv

    @with_vjp(vjp)
    def function(q: mx.array, k: mx.array, v: mx.array) -> Sequence[mx.array]:
        given = {"q": q, "k": k, "v": v}
        return launch("flash_attention_forward", implementation, given, **_sizes(q, k, window))

    return function


def _sizes(q: mx.array, k: mx.array, window: int) -> dict[str, Any]:
    """As the kernels' YAML names them."""
    B, T, H, D = q.shape
    return {"B": B, "T": T, "H": H, "Hk": k.shape[2], "D": D, "window": window, "dtype": dtype_name(q.dtype)}
