"""Float64 definitions of flash_attention_dq.metal and flash_attention_dkdv.metal, for any lse and delta."""

import numpy as np


def _score_gradient(q, k, v, d_out, lse, delta, sizes, scale):
    """P = e^(scale q kᵀ - lse) where visible, and dS = P (dO vᵀ - delta), both (B, H, T, T)."""
    window = int(sizes[3])
    k, v = (np.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in (k, v))
    distance = np.arange(q.shape[1])[:, None] - np.arange(q.shape[1])[None, :]
    visible = (distance >= 0) & ((window < 0) | (distance <= window))
    scores = np.einsum("bthd,bshd->bhts", q, k) * scale[0] - lse[..., None]
    p = np.exp(np.where(visible, scores, -np.inf))
    return p, p * (np.einsum("bthd,bshd->bhts", d_out, v) - delta[..., None])


def dq(q, k, v, out, d_out, lse, d_lse, sizes, scale):
    """delta[b, h, t] = dO · out - d_lse, and dq = scale dS k. q, out, d_out: (B, T, H, D); k, v: (B, T, Hk, D)."""
    delta = np.einsum("bthd,bthd->bht", d_out, out) - d_lse
    _, ds = _score_gradient(q, k, v, d_out, lse, delta, sizes, scale)
    k = np.repeat(k, q.shape[2] // k.shape[2], axis=2)
    return {"dq": np.einsum("bhts,bshd->bthd", ds, k) * scale[0], "delta": delta}


def dkdv(q, k, v, d_out, lse, delta, sizes, scale):
    """dk = scale dSᵀ q and dv = Pᵀ dO, summed over the heads of a group: both (B, T, Hk, D)."""
    p, ds = _score_gradient(q, k, v, d_out, lse, delta, sizes, scale)
    B, T, kv_heads, D = k.shape
    grouped = (B, T, kv_heads, q.shape[2] // kv_heads, D)
    return {
        "dk": np.einsum("bhts,bthd->bshd", ds, q).reshape(grouped).sum(axis=3) * scale[0],
        "dv": np.einsum("bhts,bthd->bshd", p, d_out).reshape(grouped).sum(axis=3),
    }
