"""Float64 definition of flash_attention_forward.metal."""

import numpy as np


def definition(q, k, v, sizes, scale):
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
