from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from mlx_autoresearch.kernels import tuning
from mlx_autoresearch.recipe import rotary
from mlx_autoresearch.recipe.norm import EPS, norm
from mlx_autoresearch.recipe.rotary import norm_rope, rope
from tests.support.arrays import normal, relative_error
from tests.support.sines import ERROR, fast_sines


def test_rope_restarts_at_every_row_and_head() -> None:
    x = mx.broadcast_to(normal((1, 9, 1, 8), 0), (3, 9, 4, 8))
    y = np.array(rope(x))
    for row in range(3):
        for head in range(4):
            assert np.array_equal(y[row, :, head], y[0, :, 0])
    assert np.array_equal(y[:, 0], np.array(x)[:, 0]), "position 0 is not rotated"


def defined(x: mx.array) -> np.ndarray:
    """Pairs (j, j + D/2) are turned by minus position * 10000**(-2j/D), as the reference turns them; float64."""
    T, D = x.shape[1], x.shape[-1]
    x1, x2 = np.split(np.array(x, np.float64), 2, axis=-1)
    angle = (np.arange(T)[:, None] * 10000.0 ** (-np.arange(0, D, 2) / D))[:, None, :]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([x1 * cos + x2 * sin, x2 * cos - x1 * sin], axis=-1)


def mlx_own(x: mx.array) -> mx.array:
    """By MLX's operation, which on Metal takes fast sines."""
    y = mx.fast.rope(x.transpose(0, 2, 1, 3), x.shape[-1], traditional=False, base=10000.0, scale=-1.0, offset=0)
    return y.transpose(0, 2, 1, 3)


@pytest.fixture(params=["precise", "fast"])
def sines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "fast":
        fast_sines(monkeypatch)
    return request.param


def test_rope_against_its_definition(sines: str) -> None:
    """As good as float32, or as MLX's own operation on this device where that is worse."""
    x = normal((2, 11, 3, 8), 1)
    allowed = max(1e-6, 1.01 * relative_error(mlx_own(x), defined(x)))
    assert allowed < 4 * ERROR
    assert relative_error(rope(x), defined(x)) < allowed


def test_kernels_are_judged_by_exact_angles(sines: str) -> None:
    """Whatever sines MLX's own rope takes; judged by those, an error of theirs would pass for exact."""
    for operation, before in ((rotary._ROPE, lambda x: x), (rotary._NORM_ROPE, norm)):
        x = normal((2, 130, 3, 8), 1, 3.0)
        (right, gradient) = tuning._in_float32(operation, (x,), (x,), {})()
        assert relative_error(right, defined(before(x))) < 1e-6
        theirs = relative_error(mx.array(operation.composed(x)), defined(before(x)))
        assert theirs < 1e-5 if sines == "precise" else theirs > 1e-5
        assert gradient.shape == x.shape


@pytest.mark.parametrize("wrong", [None, "position", "base", "direction"])
def test_a_wrong_rope_is_found_and_a_right_one_is_not_blamed(sines: str, wrong: str | None) -> None:
    def kernel(x: mx.array, *, language: str) -> mx.array:
        T, D = x.shape[1], x.shape[-1]
        position = np.arange(T) + (wrong == "position")  # as if they went on from another head
        base = 1000.0 if wrong == "base" else 10000.0
        angle = (position[:, None] * base ** (-np.arange(0, D, 2) / D))[:, None, :]
        cos, sin = mx.array(np.cos(angle)), mx.array(np.sin(angle) * (-1 if wrong == "direction" else 1))
        x1, x2 = mx.split(x, 2, axis=-1)
        return mx.concatenate([x1 * cos + x2 * sin, x2 * cos - x1 * sin], axis=-1)

    operation = replace(rotary._ROPE, custom=kernel)
    measured = tuning.measure(operation, (normal((2, 11, 3, 8), 1),), {}, "cuda")["cuda"]
    assert measured.failure == ("its results are wrong" if wrong else None)


@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (2, 11, 3, 8), (1, 130, 2, 64)])
@pytest.mark.parametrize("name", ["norm", "rope", "norm_rope"])
def test_gradients_against_mlx_own_operations(name, shape) -> None:
    """MLX's `fast` operations are the other implementation of the same definitions."""

    def fast(x: mx.array) -> mx.array:
        if name != "norm":
            x = mlx_own(x)
        return x if name == "rope" else mx.fast.rms_norm(x, None, EPS)

    ours = {"norm": norm, "rope": rope, "norm_rope": norm_rope}[name]
    x, cotangent = normal(shape, 0, 3.0), normal(shape, 1)
    for f in (ours, mx.compile(ours)):
        assert relative_error(f(x), fast(x)) < 2e-6
        got, expected = (mx.vjp(g, [x], [cotangent])[1][0] for g in (f, fast))
        # MLX takes angles in float32: an error of 1e-5 at position 130.
        assert np.abs(np.array(got) - np.array(expected)).max() < 3e-5


def test_norm_of_zeros_is_zero() -> None:
    assert np.array_equal(np.array(norm(mx.zeros((2, 8)))), np.zeros((2, 8)))


def test_half_precision_keeps_its_dtype() -> None:
    x = normal((1, 5, 2, 8), 0)
    half = norm_rope(x.astype(mx.bfloat16))
    assert half.dtype == mx.bfloat16
    assert relative_error(half.astype(mx.float32), norm_rope(x)) < 1e-2
