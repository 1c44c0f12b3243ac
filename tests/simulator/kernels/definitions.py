"""Float64 definitions of the kernels beside this file, which exist to be broken by mutations.py."""

import numpy as np


def row_sum(x):
    return {"y": x.sum(axis=1)}


def matmul(A, B):
    return {"C": A @ B}


def histogram(x):
    return {"counts": np.bincount(x, minlength=16)}


def weigh(x):
    return {"y": x * np.tile([0.1, 0.2, 0.3, 0.4], x.size // 4)}


def rotate(x):
    return {"doubled": 2 * x, "y": np.roll(2 * x.reshape(-1, 64), -1, axis=1).reshape(-1)}


def mirror(x):
    lanes = x.reshape(-1, 32)
    return {"y": (lanes[:, ::-1] + lanes.sum(axis=1, keepdims=True)).reshape(-1)}


def flash_attention(q, k, v, sizes, scale):
    """out[b, t, h] = softmax over keys s in [t - window, t] of scale · q[b, t, h] · k[b, s, h / group], times v.

    q: (B, T, H, D); k, v: (B, T, Hk, D); sizes: T, H, Hk, window (negative: unlimited). lse: (B, H, T), natural.
    """
    _, n_heads, n_kv_heads, window = (int(size) for size in sizes)
    k, v = (np.repeat(x, n_heads // n_kv_heads, axis=2) for x in (k, v))
    scores = np.einsum("bthd,bshd->bhts", q, k) * scale[0]
    distance = np.arange(q.shape[1])[:, None] - np.arange(q.shape[1])[None, :]
    visible = (distance >= 0) & ((window < 0) | (distance <= window))
    scores = np.where(visible, scores, -np.inf)
    largest = scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores - largest)
    total = weights.sum(axis=-1, keepdims=True)
    out = np.einsum("bhts,bshd->bthd", weights / total, v)
    return {"out": out, "lse": (largest + np.log(total))[..., 0]}


def tiled_rope(x, base):
    """Rotates the pair (x[..., i], x[..., i + D/2]) at position t by -t · base^(-2i/D). x: (B, T, H, D)."""
    _, length, _, head_dim = x.shape
    frequencies = base[0] ** (-2.0 * np.arange(head_dim // 2) / head_dim)
    angles = np.arange(length)[:, None, None] * frequencies  # (T, 1, D/2)
    cos, sin = np.cos(angles), np.sin(angles)
    a, b = np.split(x, 2, axis=-1)
    return {"y": np.concatenate([a * cos + b * sin, b * cos - a * sin], axis=-1)}


def symmetric_polynomial(A, coefficients):
    """B = b A + c A A, the polynomial inside a Newton-Schulz step. A: (N, n, n), each matrix symmetric."""
    return {"B": coefficients[0] * A + coefficients[1] * (A @ A)}
