"""The shapes and dtypes that operations take: each check once, for composed MLX and for our kernels."""

from __future__ import annotations

import mlx.core as mx

FLOATS = (mx.float32, mx.float16, mx.bfloat16)  # what our kernels load and store


def check_float(operation: str, dtype: mx.Dtype, what: str = "") -> None:
    """Raises ValueError, in the name of `operation`, unless our kernels take `dtype`; `what` has it, e.g. "logits"."""
    if dtype not in FLOATS:
        expected = f"{what} of float32" if what else "float32"
        raise ValueError(f"[{operation}] expected {expected}, float16 or bfloat16, got {dtype}")


def check_attention(operation: str, q: mx.array, k: mx.array, v: mx.array, window: int | None) -> None:
    """Raises ValueError, in the name of `operation`, when shapes, dtypes or the window do not fit attention.

    q: (B, T, H, D). k, v: (B, T, H_kv, D) with H a multiple of H_kv; all of one dtype. window: at least 0, or None.
    """
    if q.ndim != 4 or k.ndim != 4 or v.shape != k.shape:
        raise ValueError(
            f"[{operation}] expected q (B, T, H, D) and k, v (B, T, H_kv, D), got {q.shape}, {k.shape}, {v.shape}"
        )
    B, T, H, D = q.shape
    if k.shape[:2] != (B, T) or k.shape[3] != D:
        raise ValueError(f"[{operation}] q and k must agree in B, T and D, got {q.shape} and {k.shape}")
    if H % k.shape[2]:
        raise ValueError(f"[{operation}] query heads must be a multiple of key heads, got {H} and {k.shape[2]}")
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"[{operation}] q, k and v must share a dtype, got {q.dtype}, {k.dtype}, {v.dtype}")
    if window is not None and window < 0:
        raise ValueError(f"[{operation}] window must be at least 0 or None, got {window}")


def check_residual(operation: str, x: mx.array, y: mx.array, *gains: mx.array) -> None:
    """Raises ValueError, in the name of `operation`, unless x and y (..., C) can be added, each times its gain.

    x, y: of one shape and dtype. gains: none, or a and b, (1,) in that dtype.
    """
    if x.ndim == 0 or x.shape != y.shape or x.dtype != y.dtype:
        raise ValueError(
            f"[{operation}] x and y must agree, got {x.shape} of {x.dtype} and {y.shape} of {y.dtype}; "
            "expected (..., C) of one dtype"
        )
    for gain in gains:
        if gain.shape != (1,) or gain.dtype != x.dtype:
            raise ValueError(f"[{operation}] a and b must be (1,) of {x.dtype}, got {gain.shape} of {gain.dtype}")
