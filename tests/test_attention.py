from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from helpers import normal

from mlx_autoresearch.attention import attention

# T around the block size of 128, one head to many, every kind of window.
SHAPES = [
    (2, 1, 2, 2, 8),
    (1, 7, 4, 1, 16),
    (2, 33, 4, 2, 32),
    (1, 97, 8, 1, 16),
    (1, 128, 2, 2, 32),
    (1, 129, 2, 1, 32),
    (1, 257, 2, 2, 16),
    (1, 300, 6, 3, 8),
]


# fastmath.exp is good to 1e-5 at the very worst, and values are of order 1.
FLOOR = 5e-6


def windows(T: int) -> list[int | None]:
    return [*sorted({0, 1, T // 2, max(T - 2, 0), T - 1, T, 4 * T}), None]


def qkv(shape: tuple[int, int, int, int, int]) -> tuple[mx.array, mx.array, mx.array]:
    B, T, H, H_kv, D = shape
    return normal((B, T, H, D), 0), normal((B, T, H_kv, D), 1), normal((B, T, H_kv, D), 2)


def definition(q: np.ndarray, k: np.ndarray, v: np.ndarray, window: int | None) -> np.ndarray:
    """The mask, the softmax and nothing else, in the dtype of q."""
    _, T, H, D = q.shape
    G = H // k.shape[2]
    k, v = np.repeat(k, G, axis=2), np.repeat(v, G, axis=2)
    scores = np.einsum("bihd,bjhd->bhij", q, k) / np.sqrt(np.array(D, q.dtype))
    distance = np.arange(T)[:, None] - np.arange(T)[None, :]
    visible = (distance >= 0) & (distance <= (T if window is None else window))
    scores = np.where(visible, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("bhij,bjhd->bihd", weights, v)


def composed(q: mx.array, k: mx.array, v: mx.array, window: int | None) -> mx.array:
    """The same with MLX's own operations: the path whose error sets the budgets."""
    T, G = q.shape[1], q.shape[2] // k.shape[2]
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, mx.repeat(k, G, axis=2), mx.repeat(v, G, axis=2)))
    distance = mx.arange(T)[:, None] - mx.arange(T)[None, :]
    visible = (distance >= 0) & (distance <= (T if window is None else window))
    scores = mx.where(visible, (q @ k.swapaxes(-1, -2)) * q.shape[-1] ** -0.5, -mx.inf)
    return (mx.softmax(scores, axis=-1) @ v).transpose(0, 2, 1, 3)


def error(got: mx.array, expected: np.ndarray) -> float:
    return float(np.abs(np.array(got, np.float64) - expected).max())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_against_float64(shape) -> None:
    q, k, v = qkv(shape)
    for window in windows(shape[1]):
        exact = definition(*(np.array(x, np.float64) for x in (q, k, v)), window)
        budget = 2 * error(composed(q, k, v, window), exact) + FLOOR
        assert error(attention(q, k, v, window), exact) < budget, window


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_against_float64(shape) -> None:
    q, k, v = qkv(shape)
    cotangent = normal(q.shape, 3)
    for window in windows(shape[1]):
        exact = definition_gradients(*(np.array(x, np.float64) for x in (q, k, v, cotangent)), window)
        got, same_precision = (
            mx.vjp(lambda *x, f=f, w=window: f(*x, w), [q, k, v], [cotangent])[1] for f in (attention, composed)
        )
        for name, g, c, e in zip("qkv", got, same_precision, exact, strict=True):
            assert error(g, e) < 3 * error(c, e) + FLOOR, (window, name)


def definition_gradients(q, k, v, g, window) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dS = P (dP - rowsum(P dP)), written out."""
    B, T, H, D = q.shape
    H_kv = k.shape[2]
    G = H // H_kv
    kr, vr = np.repeat(k, G, axis=2), np.repeat(v, G, axis=2)
    scores = np.einsum("bihd,bjhd->bhij", q, kr) / np.sqrt(D)
    distance = np.arange(T)[:, None] - np.arange(T)[None, :]
    visible = (distance >= 0) & (distance <= (T if window is None else window))
    scores = np.where(visible, scores, -np.inf)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    dp = np.einsum("bihd,bjhd->bhij", g, vr)
    ds = p * (dp - (p * dp).sum(axis=-1, keepdims=True)) / np.sqrt(D)
    dq = np.einsum("bhij,bjhd->bihd", ds, kr)
    dk = np.einsum("bhij,bihd->bjhd", ds, q).reshape(B, T, H_kv, G, D).sum(axis=3)
    dv = np.einsum("bhij,bihd->bjhd", p, g).reshape(B, T, H_kv, G, D).sum(axis=3)
    return dq, dk, dv


def test_the_window_ends_exactly_where_it_says() -> None:
    """With w = 2, query 5 sees keys 3, 4 and 5 and no other, and never a later one."""
    q, k, v = qkv((1, 8, 2, 2, 8))
    base = np.array(attention(q, k, v, 2))
    for key in range(8):
        changed = mx.array(np.where(np.arange(8)[None, :, None, None] == key, np.array(v) + 1, np.array(v)))
        moved = np.abs(np.array(attention(q, k, changed, 2)) - base).max(axis=(0, 2, 3)) > 0
        assert moved.tolist() == [key <= query <= key + 2 for query in range(8)]


def test_half_precision_keeps_its_dtype_and_sums_in_float32() -> None:
    q, k, v = (x.astype(mx.bfloat16) for x in qkv((1, 65, 2, 1, 16)))
    out = attention(q, k, v, 20)
    exact = definition(*(np.array(x.astype(mx.float32), np.float64) for x in (q, k, v)), 20)
    assert out.dtype == mx.bfloat16
    assert error(out.astype(mx.float32), exact) < 2 * error(composed(q, k, v, 20).astype(mx.float32), exact) + 1e-2


def test_large_scores_do_not_overflow() -> None:
    q, k, v = qkv((1, 40, 1, 1, 16))
    out = np.array(attention(q * 100, k * 100, v))
    assert np.isfinite(out).all()
    assert np.abs(out).max() <= np.abs(np.array(v)).max() * (1 + 1e-6)


@pytest.mark.parametrize(
    "q, k, v, window, message",
    [
        ((1, 4, 3, 8), (1, 4, 2, 8), (1, 4, 2, 8), None, "multiple of key heads, got 3 and 2"),
        ((1, 4, 2, 8), (1, 5, 2, 8), (1, 5, 2, 8), None, "must agree in B, T and D"),
        ((1, 4, 2, 8), (1, 4, 2, 8), (1, 4, 1, 8), None, "expected q"),
        ((4, 2, 8), (4, 2, 8), (4, 2, 8), None, "expected q"),
        ((1, 4, 2, 8), (1, 4, 2, 8), (1, 4, 2, 8), -1, "window must be at least 0 or None, got -1"),
    ],
)
def test_wrong_use_is_named(q, k, v, window, message) -> None:
    with pytest.raises(ValueError, match=message):
        attention(mx.zeros(q), mx.zeros(k), mx.zeros(v), window)


def test_mixed_dtypes_are_refused() -> None:
    q, k, v = qkv((1, 4, 2, 2, 8))
    with pytest.raises(ValueError, match="share a dtype"):
        attention(q.astype(mx.bfloat16), k, v)
