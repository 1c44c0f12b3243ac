"""Kernels that add to a residual stream and take its norm: as exact as the composed operations, with all gradients."""

from __future__ import annotations

from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_autoresearch.kernels.registry import find_kernel
from mlx_autoresearch.recipe import norm
from mlx_autoresearch.recipe.kernels.residual_norm import mixed_norm, residual_norm
from tests.support.arrays import normal

KERNELS: dict[str, Any] = {"residual_norm": residual_norm, "mixed_norm": mixed_norm}
COMPOSED: dict[str, Any] = {
    "residual_norm": partial(norm.residual_norm, implementation="mlx"),
    "mixed_norm": partial(norm.mixed_norm, implementation="mlx"),
}
EPSILON = {mx.float32: 2.0**-23, mx.float16: 2.0**-10, mx.bfloat16: 2.0**-7}
GAINS = (0.75, -0.5)  # the same in every dtype


def float64(x: mx.array) -> np.ndarray:
    return np.array(x.astype(mx.float32)).astype(np.float64)


def arrays(name: str, shape: tuple[int, ...], dtype: mx.Dtype = mx.float32) -> list[mx.array]:
    gains = [mx.array([gain]) for gain in GAINS] if name == "mixed_norm" else []
    return [x.astype(dtype) for x in (normal(shape, 0), normal(shape, 1), *gains)]


def exact(given: list[mx.array], ds: mx.array, dn: mx.array) -> list[np.ndarray]:
    """s, n and the gradients, in float64."""
    x, y, *gains = map(float64, given)
    a, b = gains or (1.0, 1.0)
    s = a * x + b * y
    r = 1 / np.sqrt((s**2).mean(axis=-1, keepdims=True) + norm.EPS)
    g = float64(dn)
    d = float64(ds) + r * (g - s * r**2 * (g * s).mean(axis=-1, keepdims=True))
    of_gains = [(d * x).sum(keepdims=True).reshape(1), (d * y).sum(keepdims=True).reshape(1)] if gains else []
    return [s, s * r, a * d, b * d, *of_gains]


def results(function: Any, given: list[mx.array], cotangents: list[mx.array]) -> list[mx.array]:
    outputs, gradients = mx.vjp(lambda *xs: list(function(*xs)), given, cotangents)
    return [*outputs, *gradients]


def largest_error(got: mx.array, expected: np.ndarray) -> float:
    assert got.shape == expected.shape
    return float(np.abs(float64(got) - expected).max())


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 1, 8), mx.float32),
        ((2, 7, 33), mx.bfloat16),
        ((1, 33, 96), mx.float16),
        ((2, 97, 256), mx.float32),
        ((1, 257, 132), mx.bfloat16),
        ((1, 3, 1028), mx.float32),  # in two chunks
    ],
)
def test_error_is_that_of_the_composed_operations(implementation, name: str, shape, dtype) -> None:
    given = arrays(name, shape, dtype)
    cotangents = [normal(shape, 2).astype(dtype), normal(shape, 3).astype(dtype)]
    expected = exact(given, *cotangents)
    ours = results(partial(KERNELS[name], implementation=implementation), given, cotangents)
    theirs = results(COMPOSED[name], given, cotangents)
    for i, (got, other, right) in enumerate(zip(ours, theirs, expected, strict=True)):
        assert got.dtype == dtype
        floor = 4 * EPSILON[dtype] * max(1.0, float(np.abs(right).max()))
        assert largest_error(got, right) <= (2 if i < 2 else 3) * largest_error(other, right) + floor


def test_the_sum_is_the_composed_one_bit_for_bit(implementation) -> None:
    x, y = arrays("residual_norm", (2, 9, 64), mx.bfloat16)
    assert mx.array_equal(residual_norm(x, y, implementation=implementation)[0], x + y)


@pytest.mark.parametrize("name", KERNELS)
def test_gradient_against_finite_differences(implementation, name: str) -> None:
    given = arrays(name, (1, 3, 32))
    weights = normal((1, 3, 32), 4), normal((1, 3, 32), 5)
    directions = [normal(x.shape, 6 + i) for i, x in enumerate(given)]

    def f(*xs: mx.array) -> mx.array:
        s, n = KERNELS[name](*xs, implementation=implementation)
        return (s * weights[0] + n * weights[1]).sum()

    step = 1e-2
    ends = [f(*(x + sign * step * d for x, d in zip(given, directions, strict=True))).item() for sign in (1, -1)]
    gradients = mx.grad(f, argnums=list(range(len(given))))(*given)
    slope = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True))
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=2e-3)


@pytest.mark.parametrize("name", KERNELS)
def test_any_layout_of_input_and_cotangent(implementation, name: str) -> None:
    """Transposed and broadcast arrays give what their copies give, also under checkpointing."""
    kernel = lambda *xs: list(KERNELS[name](*xs, implementation=implementation))  # noqa: E731
    shape = (2, 5, 32)
    given = arrays(name, shape)
    given[1] = normal((2, 32, 5), 1).transpose(0, 2, 1)
    cotangents = [mx.broadcast_to(normal((32,), 2), shape), normal((5, 2, 32), 3).transpose(1, 0, 2)]
    copies = [mx.contiguous(x) for x in given], [mx.contiguous(x) for x in cotangents]
    expected = results(kernel, *copies)
    for f in (kernel, mx.checkpoint(kernel)):
        for got, right in zip(results(f, given, cotangents), expected, strict=True):
            assert mx.array_equal(got, right)


@pytest.mark.parametrize("used", [0, 1])
def test_one_result_may_go_unused(implementation, used: int) -> None:
    given, cotangents = arrays("residual_norm", (1, 2, 32)), [mx.zeros((1, 2, 32)), mx.zeros((1, 2, 32))]
    cotangents[used] = mx.ones((1, 2, 32))
    gradient = mx.grad(lambda x, y: residual_norm(x, y, implementation=implementation)[used].sum())(*given)
    assert largest_error(gradient, exact(given, *cotangents)[2]) < 1e-5


def test_a_row_of_zeros_stays_zero(implementation) -> None:
    x = mx.zeros((1, 2, 32))
    s, n = residual_norm(x, x, implementation=implementation)
    gradient = mx.grad(lambda x: residual_norm(x, x, implementation=implementation)[1].sum())(x)
    assert not s.any() and not n.any() and mx.isfinite(gradient).all()


def test_eps_is_the_composed_operations() -> None:
    for name in ("residual_norm_forward", "residual_norm_backward", "mixed_norm_backward"):
        assert find_kernel(name).description.defaults["eps"] == norm.EPS


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (mx.zeros((2, 3, 8)), mx.zeros((2, 3, 4)), r"x and y must agree, got \(2, 3, 8\)"),
        (mx.zeros((2, 8)), mx.zeros((2, 8), mx.bfloat16), "x and y must agree"),
        (mx.zeros((1, 8), mx.int32), mx.zeros((1, 8), mx.int32), "expected float32, float16 or bfloat16"),
        (mx.zeros((1, 7)), mx.zeros((1, 7)), "at least 8 elements"),
    ],
)
def test_wrong_use_is_named(name: str, x: mx.array, y: mx.array, message: str) -> None:
    scalars = [mx.ones((1,))] * (2 if name == "mixed_norm" else 0)
    with pytest.raises(ValueError, match=rf"\[{name}\] .*{message}"):
        KERNELS[name](x, y, *scalars, implementation="simulator")


def test_scalars_of_another_shape_are_named() -> None:
    x = mx.zeros((1, 1, 8))
    for function in (partial(mixed_norm, implementation="simulator"), COMPOSED["mixed_norm"]):
        with pytest.raises(ValueError, match=r"\[mixed_norm\] a and b must be \(1,\)"):
            function(x, x, mx.array(1.0), mx.ones((1,)))
