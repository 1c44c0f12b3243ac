from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlx_autoresearch.recipe.norm import EPS, norm
from mlx_autoresearch.recipe.rotary import norm_rope, rope
from tests.support.arrays import normal, relative_error


def test_rope_restarts_at_every_row_and_head() -> None:
    x = mx.broadcast_to(normal((1, 9, 1, 8), 0), (3, 9, 4, 8))
    y = np.array(rope(x))
    for row in range(3):
        for head in range(4):
            assert np.array_equal(y[row, :, head], y[0, :, 0])
    assert np.array_equal(y[:, 0], np.array(x)[:, 0]), "position 0 is not rotated"


def test_rope_against_its_definition() -> None:
    """Pairs (j, j + D/2) are turned by minus position * 10000**(-2j/D), as the reference turns them."""
    x = normal((2, 11, 3, 8), 1)
    x1, x2 = np.split(np.array(x, np.float64), 2, axis=-1)
    angle = (np.arange(11)[:, None] * 10000.0 ** (-np.arange(0, 8, 2) / 8))[:, None, :]
    cos, sin = np.cos(angle), np.sin(angle)
    assert relative_error(rope(x), np.concatenate([x1 * cos + x2 * sin, x2 * cos - x1 * sin], axis=-1)) < 1e-6


@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (2, 11, 3, 8), (1, 130, 2, 64)])
@pytest.mark.parametrize("name", ["norm", "rope", "norm_rope"])
def test_gradients_against_mlx_own_operations(name, shape) -> None:
    """MLX's `fast` operations are the other implementation of the same definitions."""

    def fast(x: mx.array) -> mx.array:
        if name != "norm":
            x = mx.fast.rope(
                x.transpose(0, 2, 1, 3), x.shape[-1], traditional=False, base=10000.0, scale=-1.0, offset=0
            ).transpose(0, 2, 1, 3)
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
