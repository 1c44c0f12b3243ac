"""Sliding-window attention as it is defined, in NumPy, and composed of MLX's own operations."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np


def probabilities(q: np.ndarray, k: np.ndarray, window: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The softmax of masked scores (B, H, T, T) and the log-sum-exp of each row (B, H, T), in the dtype of q."""
    _, T, H, D = q.shape
    scores = np.einsum("bihd,bjhd->bhij", q, np.repeat(k, H // k.shape[2], axis=2)) / np.sqrt(np.array(D, q.dtype))
    distance = np.arange(T)[:, None] - np.arange(T)[None, :]
    visible = (distance >= 0) & (distance <= (T if window is None else window))
    scores = np.where(visible, scores, -np.inf)
    largest = scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores - largest)
    total = weights.sum(axis=-1, keepdims=True)
    return weights / total, (largest + np.log(total))[..., 0]


def definition(q: np.ndarray, k: np.ndarray, v: np.ndarray, window: int | None) -> np.ndarray:
    """The mask, the softmax and nothing else, in the dtype of q."""
    p, _ = probabilities(q, k, window)
    return np.einsum("bhij,bjhd->bihd", p, np.repeat(v, q.shape[2] // v.shape[2], axis=2))


def definition_gradients(q, k, v, d_out, window, d_lse: Any = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dS = P (dP - rowsum(P dP) + dlse), written out."""
    B, T, H, D = q.shape
    H_kv = k.shape[2]
    G = H // H_kv
    p, _ = probabilities(q, k, window)
    dp = np.einsum("bihd,bjhd->bhij", d_out, np.repeat(v, G, axis=2)) + np.expand_dims(d_lse, -1)
    ds = p * (dp - (p * (dp - np.expand_dims(d_lse, -1))).sum(axis=-1, keepdims=True)) / np.sqrt(D)
    dq = np.einsum("bhij,bjhd->bihd", ds, np.repeat(k, G, axis=2))
    dk = np.einsum("bhij,bihd->bjhd", ds, q).reshape(B, T, H_kv, G, D).sum(axis=3)
    dv = np.einsum("bhij,bihd->bjhd", p, d_out).reshape(B, T, H_kv, G, D).sum(axis=3)
    return dq, dk, dv


def composed(q: mx.array, k: mx.array, v: mx.array, window: int | None) -> mx.array:
    """The same with MLX's own operations, in the dtype of q: the path whose error sets the budgets."""
    T, G = q.shape[1], q.shape[2] // k.shape[2]
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, mx.repeat(k, G, axis=2), mx.repeat(v, G, axis=2)))
    distance = mx.arange(T)[:, None] - mx.arange(T)[None, :]
    visible = (distance >= 0) & (distance <= (T if window is None else window))
    scores = mx.where(visible, (q @ k.swapaxes(-1, -2)) * q.shape[-1] ** -0.5, -mx.inf)
    return (mx.softmax(scores, axis=-1) @ v).transpose(0, 2, 1, 3)
