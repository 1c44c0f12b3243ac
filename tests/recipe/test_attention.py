from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlx_autoresearch.machine.device import is_gpu
from mlx_autoresearch.recipe.attention import attention, banded, fused, visible
from tests.support.arrays import normal
from tests.support.attention_reference import composed, definition, definition_gradients

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


# T and window: 0 and 1; blocks that end at T and past it; a window that is not whole blocks; blocks of more than 64.
BANDS = [(3, 0), (65, 0), (66, 1), (130, 63), (128, 64), (200, 65), (193, 65), (450, 290), (440, 290)]


@pytest.mark.parametrize(("T", "window"), BANDS, ids=str)
def test_the_formulations_for_gpus_against_float64(T: int, window: int) -> None:
    """They run here on the CPU; attention itself takes another one there."""
    q, k, v = qkv((2 if T < 200 else 1, T, 2, 1, 8))
    cotangent = normal(q.shape, 3)
    arrays = [np.array(x, np.float64) for x in (q, k, v, cotangent)]
    exact = definition(*arrays[:3], window)
    exact_gradients = definition_gradients(*arrays, window)
    (plain,), same_precision = mx.vjp(lambda *x: composed(*x, window), [q, k, v], [cotangent])
    for f in (lambda *x: banded(*x, window), lambda *x: fused(*x, visible(T, T, 0, window))):
        (out,), gradients = mx.vjp(f, [q, k, v], [cotangent])
        assert error(out, exact) < 2 * error(plain, exact) + FLOOR
        for name, g, c, e in zip("qkv", gradients, same_precision, exact_gradients, strict=True):
            assert error(g, e) < 3 * error(c, e) + FLOOR, name


def test_bands_keep_their_dtype_and_skip_what_nobody_sees() -> None:
    """NaN in a block of keys outside the window does not spread."""
    q, k, v = (x.astype(mx.bfloat16) for x in qkv((1, 400, 2, 2, 8)))
    hidden = mx.arange(400)[None, :, None, None] < 64
    out = banded(q, *(mx.where(hidden, mx.nan, x) for x in (k, v)), 64)
    assert out.dtype == mx.bfloat16
    assert np.isfinite(np.array(out[:, 192:].astype(mx.float32))).all()


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


@pytest.mark.skipif(is_gpu(), reason="a GPU computes it otherwise")
@pytest.mark.parametrize("T", [1, 97, 300])
def test_float16_on_a_cpu_holds_values_whose_sum_it_does_not(T: int) -> None:
    """300 values of 400 are 120,000, and float16 ends at 65,504."""
    q, k, v = (x.astype(mx.float16) for x in qkv((1, T, 2, 1, 16)))
    v, cotangent = v + 400, normal(q.shape, 3).astype(mx.float16)
    (out,), gradients = mx.vjp(lambda *x: attention(*x, None), [q, k, v], [cotangent])
    wide = [x.astype(mx.float32) for x in (q, k, v, cotangent)]
    (exact,), exact_gradients = mx.vjp(lambda *x: attention(*x, None), wide[:3], wide[3:])
    for got, expected in zip([out, *gradients], [exact, *exact_gradients], strict=True):
        assert got.dtype == mx.float16
        assert mx.allclose(got.astype(mx.float32), expected, rtol=2**-10, atol=2**-24).item()
