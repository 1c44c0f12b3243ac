"""RoPE and norm + RoPE kernels: as exact as the composed operations, positions, gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_autoresearch.kernels.launch import launch
from mlx_autoresearch.kernels.registry import find_kernel
from mlx_autoresearch.recipe import rotary
from mlx_autoresearch.recipe.kernels import rope as rope_module
from mlx_autoresearch.recipe.kernels.rope import norm_rope, rope
from mlx_autoresearch.recipe.norm import EPS
from tests.support.arrays import normal

KERNELS: dict[str, Any] = {"rope": rope, "norm_rope": norm_rope}
COMPOSED: dict[str, Callable[[mx.array], mx.array]] = {
    "rope": partial(rotary.rope, implementation="mlx"),
    "norm_rope": partial(rotary.norm_rope, implementation="mlx"),
}
EPSILON = {mx.float32: 2.0**-23, mx.float16: 2.0**-10, mx.bfloat16: 2.0**-7}


def float64(x: mx.array) -> np.ndarray:
    return np.array(x.astype(mx.float32)).astype(np.float64)


def turn(x: np.ndarray, direction: float) -> np.ndarray:
    half = x.shape[-1] // 2
    angle = (np.arange(x.shape[1])[:, None] * 10000.0 ** (-2.0 * np.arange(half) / (2 * half)))[:, None, :] * direction
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], axis=-1)


def exact(name: str, x: mx.array, dy: mx.array) -> tuple[np.ndarray, np.ndarray]:
    """The output and the gradient in float64."""
    x64, g = float64(x), turn(float64(dy), 1.0)
    if name == "rope":
        return turn(x64, -1.0), g
    r = 1 / np.sqrt((x64**2).mean(axis=-1, keepdims=True) + EPS)
    return turn(x64 * r, -1.0), r * (g - x64 * r**2 * (g * x64).mean(axis=-1, keepdims=True))


def largest_error(got: mx.array, expected: np.ndarray) -> float:
    assert got.shape == expected.shape
    return float(np.abs(float64(got) - expected).max())


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(
    ("B", "T", "H", "D", "dtype"),
    [
        (1, 1, 1, 64, mx.float32),
        (2, 7, 3, 32, mx.bfloat16),
        (1, 33, 2, 96, mx.float16),
        (2, 97, 1, 128, mx.float32),
        (1, 257, 1, 64, mx.bfloat16),
        (1, 5, 2, 10, mx.float32),
    ],
)
def test_error_is_that_of_the_composed_operations(implementation, name: str, B, T, H, D, dtype) -> None:
    x, dy = normal((B, T, H, D), 0, 3.0).astype(dtype), normal((B, T, H, D), 1).astype(dtype)
    y, dx = exact(name, x, dy)
    kernel = lambda x: KERNELS[name](x, implementation=implementation)  # noqa: E731
    floor = 2 * EPSILON[dtype]
    assert kernel(x).dtype == dtype
    assert largest_error(kernel(x), y) <= 2 * largest_error(COMPOSED[name](x), y) + floor
    got, composed = (mx.vjp(f, [x], [dy])[1][0] for f in (kernel, COMPOSED[name]))
    assert got.dtype == dtype
    assert largest_error(got, dx) <= 3 * largest_error(composed, dx) + floor


def test_angles_stay_exact_at_distant_positions(implementation) -> None:
    """The first eight positions of a stride of 9001, as far as 63,007, against angles in float64."""
    x, stride = normal((1, 8, 1, 64), 0), 9001
    frequencies = mx.array(np.array(rope_module._frequencies(64, 1)) * np.uint64(stride))
    sizes = {"B": 1, "T": 8, "H": 1, "D": 64, "dtype": "float32"}
    (y,) = launch("rope", implementation, {"x": x, "frequencies": frequencies}, **sizes)
    scattered = np.zeros((1, 7 * stride + 1, 1, 64))
    scattered[:, ::stride] = float64(x)
    assert largest_error(y, turn(scattered, 1.0)[:, ::stride]) < 1e-6


@pytest.mark.parametrize("name", KERNELS)
def test_every_row_and_head_starts_at_position_zero(implementation, name: str) -> None:
    x = mx.broadcast_to(normal((1, 9, 1, 32), 0), (3, 9, 4, 32))
    y = float64(KERNELS[name](x, implementation=implementation))
    assert (y == y[:1, :, :1]).all()
    if name == "rope":
        assert (y[:, 0] == float64(x)[:, 0]).all(), "position 0 is not turned"
    assert not np.allclose(y[:, 0], y[:, 1], atol=0.1)


@pytest.mark.parametrize("name", KERNELS)
def test_gradient_against_finite_differences(implementation, name: str) -> None:
    x, weights, direction = normal((1, 5, 2, 32), 0), normal((1, 5, 2, 32), 1), normal((1, 5, 2, 32), 2)

    def f(x: mx.array) -> mx.array:
        return (KERNELS[name](x, implementation=implementation) * weights).sum()

    step = 1e-2
    slope = (f(x + step * direction) - f(x - step * direction)).item() / (2 * step)
    assert (mx.grad(f)(x) * direction).sum().item() == pytest.approx(slope, rel=2e-3)


@pytest.mark.parametrize("name", KERNELS)
def test_any_layout_of_input_and_cotangent(implementation, name: str) -> None:
    """Transposed and broadcast arrays give what their copies give, also under checkpointing."""
    x = normal((2, 3, 7, 32), 0).transpose(0, 2, 1, 3)
    kernel = lambda x: KERNELS[name](x, implementation=implementation)  # noqa: E731
    transposed = normal((2, 3, 7, 32), 1).transpose(0, 2, 1, 3)
    broadcast = mx.broadcast_to(normal((32,), 2), x.shape)
    for dy in (transposed, broadcast):
        expected = mx.vjp(kernel, [mx.contiguous(x)], [mx.contiguous(dy)])
        for f in (kernel, mx.checkpoint(kernel)):
            got = mx.vjp(f, [x], [dy])
            assert mx.array_equal(got[0][0], expected[0][0]) and mx.array_equal(got[1][0], expected[1][0])
    summed = mx.grad(lambda x: kernel(x).sum())(x)  # whose cotangent is a broadcast one
    assert largest_error(summed, exact(name, x, mx.ones(x.shape))[1]) < 1e-5


def test_fewer_elements_than_metal_passes_as_device_memory(implementation) -> None:
    x = normal((1, 2, 1, 2), 0)
    y, gradient = exact("rope", x, mx.ones(x.shape))
    assert largest_error(rope(x, implementation=implementation), y) < 1e-6
    assert largest_error(mx.grad(lambda x: rope(x, implementation=implementation).sum())(x), gradient) < 1e-6


def test_a_row_of_zeros_stays_zero(implementation) -> None:
    x = mx.zeros((1, 2, 1, 32))
    value, gradient = mx.value_and_grad(lambda x: norm_rope(x, implementation=implementation).sum())(x)
    assert value.item() == 0 and mx.isfinite(gradient).all().item()


def test_eps_is_the_composed_operations() -> None:
    for name in ("norm_rope_forward", "norm_rope_backward"):
        assert find_kernel(name).description.defaults["eps"] == EPS


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (mx.zeros((2, 3, 32)), r"expected \(B, T, H, D\) with D even"),
        (mx.zeros((1, 2, 3, 33)), r"expected \(B, T, H, D\) with D even"),
        (mx.zeros((1, 0, 3, 32)), r"none of them 0, got \(1, 0, 3, 32\)"),
        (mx.zeros((1, 2, 3, 32), mx.int32), "expected float32, float16 or bfloat16, got mlx.core.int32"),
    ],
)
def test_wrong_use_is_named(name: str, x: mx.array, message: str) -> None:
    with pytest.raises(ValueError, match=rf"\[{name}\] .*{message}"):
        KERNELS[name](x, implementation="simulator")
