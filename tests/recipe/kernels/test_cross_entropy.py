"""Softcapped cross-entropy kernels: as exact as the composed operations, gradients of both outputs, any V."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest

from mlx_autoresearch.kernels.launch import launch
from mlx_autoresearch.recipe.kernels.cross_entropy import loss_and_gradient, softcapped_cross_entropy
from tests.support.arrays import normal, relative_error

EPSILON = {mx.float32: 2.0**-23, mx.float16: 2.0**-10, mx.bfloat16: 2.0**-7}


def float64(x: mx.array) -> np.ndarray:
    return np.array(x.astype(mx.float32)).astype(np.float64)


def exact(z: mx.array, y: mx.array, scale: mx.array, softcap: float | None) -> tuple[np.ndarray, ...]:
    """loss, lse and the gradient of the sum of scale * loss in the logits, in float64."""
    z64, rows, labels = float64(z), np.arange(z.shape[0]), np.array(y)
    s, slope = z64, np.ones_like(z64)
    if softcap:
        t = np.tanh(z64 / softcap)
        s, slope = softcap * t, 1 - t**2
    top = s.max(axis=1, keepdims=True)
    lse = (top + np.log(np.exp(s - top).sum(axis=1, keepdims=True)))[:, 0]
    gradient = np.exp(s - lse[:, None])
    gradient[rows, labels] -= 1
    return lse - s[rows, labels], lse, gradient * float64(scale)[:, None] * slope


def composed(z: mx.array, y: mx.array, softcap: float | None) -> mx.array:
    """The loss by MLX's own operations, in the dtype of the logits."""
    s = softcap * mx.tanh(z / softcap) if softcap else z
    return mx.logsumexp(s, axis=-1) - mx.take_along_axis(s, y[:, None], axis=-1)[:, 0]


def largest_error(got: mx.array, expected: np.ndarray) -> float:
    assert got.shape == expected.shape
    return float(np.abs(float64(got) - expected).max())


def sample(N: int, V: int, dtype: mx.Dtype, size: float = 5.0) -> tuple[mx.array, mx.array, mx.array]:
    """Logits, labels that include the first and the last, and a scale for each token."""
    labels = np.random.default_rng(1).integers(0, V, N)
    labels[0], labels[-1] = 0, V - 1
    return normal((N, V), 0, size).astype(dtype), mx.array(labels.astype(np.int32)), normal((N,), 2)


@pytest.mark.parametrize(
    ("N", "V", "softcap", "dtype"),
    [
        (1, 1, 15.0, mx.float32),
        (7, 3, None, mx.bfloat16),
        (3, 257, 15.0, mx.bfloat16),
        (2, 257, None, mx.float32),
        (5, 258, 200.0, mx.float16),
        (2, 4096, 15.0, mx.float32),
        (2, 4096, None, mx.bfloat16),
        (1, 8192, 15.0, mx.bfloat16),
    ],
)
def test_error_is_that_of_the_composed_operations(implementation, N: int, V: int, softcap, dtype) -> None:
    z, y, scale = sample(N, V, dtype)
    exact_loss, exact_lse, exact_gradient = exact(z, y, scale, softcap)
    composed_error = largest_error(composed(z, y, softcap), exact_loss)
    (loss, lse), (gradient,) = mx.vjp(
        lambda z: softcapped_cross_entropy(z, y, softcap, implementation=implementation),
        [z],
        [scale, mx.zeros((N,))],
    )
    both = loss_and_gradient(z, y, scale, softcap, implementation=implementation)
    assert loss.dtype == lse.dtype == both[0].dtype == mx.float32
    assert gradient.dtype == both[1].dtype == dtype
    # Sums and tanh are in float32 whatever the logits' dtype; tanh's rounding is multiplied by the softcap.
    floor = 4 * EPSILON[mx.float32] * (1 + np.abs(exact_lse).max() + (softcap or 0))
    for got, expected in ((loss, exact_loss), (both[0], exact_loss), (lse, exact_lse)):
        assert largest_error(got, expected) <= min(2 * composed_error, 1e-5) + floor
    of_composed = mx.vjp(lambda z: composed(z, y, softcap).astype(mx.float32), [z], [scale])[1][0]
    floor = (EPSILON[dtype] + floor) * np.abs(exact_gradient).max()
    for got in (gradient, both[1]):
        assert largest_error(got, exact_gradient) <= 3 * largest_error(of_composed, exact_gradient) + floor


@pytest.mark.parametrize("softcap", [15.0, None])
def test_rows_that_do_not_fit_on_the_chip(implementation, softcap) -> None:
    """50,257 is odd: 4096 logits fit, a row is visited in 13 chunks, and read twice for the gradient."""
    z, y, scale = sample(1, 50257, mx.float32)
    loss, lse, gradient = exact(z, y, scale, softcap)
    got = loss_and_gradient(z, y, scale, softcap, implementation=implementation)
    assert largest_error(got[0], loss) < 1e-5 and relative_error(got[1], gradient) < 1e-5
    got = softcapped_cross_entropy(z, y, softcap, implementation=implementation)
    assert largest_error(got[0], loss) < 1e-5 and largest_error(got[1], lse) < 1e-5


@pytest.mark.parametrize("softcap", [15.0, None])
def test_gradients_of_both_outputs_against_finite_differences(implementation, softcap) -> None:
    z, y, weights = sample(4, 37, mx.float32, 2.0)
    direction = normal(z.shape, 3)

    def f(z: mx.array) -> mx.array:
        loss, lse = softcapped_cross_entropy(z, y, softcap, implementation=implementation)
        return (weights * loss).sum() + (lse * lse).sum()

    step = 1e-2
    slope = (f(z + step * direction) - f(z - step * direction)).item() / (2 * step)
    assert (mx.grad(f)(z) * direction).sum().item() == pytest.approx(slope, rel=2e-3)


def test_any_layout_of_logits_and_cotangents(implementation) -> None:
    """Transposed logits and broadcast cotangents, an unused output, checkpointing: what copies give."""
    z, y = normal((33, 5), 0, 5.0).T, mx.array([0, 32, 1, 2, 3], mx.int64)

    def f(z: mx.array) -> mx.array:
        return softcapped_cross_entropy(z, y, 15.0, implementation=implementation)[0]

    expected = exact(z, y, mx.ones((5,)), 15.0)
    for g in (f, mx.checkpoint(f)):
        value, gradient = mx.value_and_grad(lambda z, g=g: g(z).sum())(z)
        assert value.item() == pytest.approx(expected[0].sum(), rel=1e-6)
        assert relative_error(gradient, expected[2]) < 1e-5
    lse_alone = mx.grad(lambda z: softcapped_cross_entropy(z, y, 15.0, implementation=implementation)[1].sum())(z)
    onehot = np.eye(33)[np.array(y)]
    slopes = 1 - np.tanh(float64(z) / 15.0) ** 2
    assert relative_error(lse_alone, expected[2] + onehot * slopes) < 1e-5


def test_a_gradient_of_scale_zero_is_zero(implementation) -> None:
    """How targets that are left out of the mean are given: scale 0, any label."""
    z, y, scale = sample(3, 40, mx.float32)
    scale = scale * mx.array([1.0, 0.0, 1.0])
    gradient = np.array(loss_and_gradient(z, y, scale, 15.0, implementation=implementation)[1])
    assert (gradient[1] == 0).all() and (gradient[[0, 2]] != 0).any(axis=1).all()


@pytest.mark.parametrize("softcap", [15.0, None])
def test_huge_and_masked_logits_stay_finite(implementation, softcap) -> None:
    z, y, scale = sample(3, 40, mx.float32, 1e6)
    if softcap is None:
        z = mx.where(mx.arange(40) < 20, z, -math.inf)  # all that some threads see
        y = mx.array([0, 7, 19])
    loss, _, gradient = exact(z, y, scale, softcap)
    got = loss_and_gradient(z, y, scale, softcap, implementation=implementation)
    assert np.allclose(np.array(got[0]), loss, rtol=1e-6)
    assert np.allclose(np.array(got[1]), gradient, atol=1e-6)


def test_nan_is_not_hidden(implementation) -> None:
    z = mx.where(mx.arange(40) == 7, math.nan, normal((1, 40), 0))
    for softcap in (15.0, None):
        loss, gradient = loss_and_gradient(z, mx.array([3]), mx.ones((1,)), softcap, implementation=implementation)
        assert mx.isnan(loss).all().item() and mx.isnan(gradient).all().item()


def test_the_label_alone_tells_the_rows_apart(implementation) -> None:
    """Uniform logits: every loss is ln V, and each row's gradient is 1/V but for its label's 1/V - 1."""
    labels = mx.arange(12, dtype=mx.int32)
    loss, gradient = loss_and_gradient(mx.zeros((12, 12)), labels, mx.ones((12,)), 15.0, implementation=implementation)
    assert np.allclose(np.array(loss), math.log(12), rtol=1e-6)
    assert np.allclose(np.array(gradient), 1 / 12 - np.eye(12), atol=1e-6)


def test_threads_without_logits_of_their_own(implementation) -> None:
    """Two simdgroups for ten packs: the second has none."""
    z, y, scale = sample(3, 40, mx.float32)
    sizes = {"rows": 3, "V": 40, "N": 4, "threads": 64, "softcap": 15.0, "dtype": "float32"}
    given = {"logits": z, "labels": y, "scale": scale}
    loss, gradient = launch("softcapped_cross_entropy_loss_and_gradient", implementation, given, **sizes)
    expected = exact(z, y, scale, 15.0)
    assert largest_error(loss, expected[0]) < 1e-5 and relative_error(gradient, expected[2]) < 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((mx.zeros((4, 8)), mx.zeros((3,), mx.int32), 15.0), r"expected logits \(N, V\).*got \(4, 8\) and \(3,\)"),
        ((mx.zeros((0, 8)), mx.zeros((0,), mx.int32), 15.0), r"neither of them 0"),
        ((mx.zeros((4, 8), mx.int32), mx.zeros((4,), mx.int32), 15.0), "logits of float32, float16 or bfloat16, got"),
        ((mx.zeros((4, 8)), mx.zeros((4,)), 15.0), "targets of integers, got mlx.core.float32"),
        ((mx.zeros((4, 8)), mx.zeros((4,), mx.int32), 0.0), "softcap must be above 0 or None, got 0.0"),
    ],
)
def test_wrong_use_is_named(arguments, message: str) -> None:
    logits, targets, softcap = arguments
    with pytest.raises(ValueError, match=rf"\[softcapped_cross_entropy\] .*{message}"):
        softcapped_cross_entropy(logits, targets, softcap, implementation="simulator")
    with pytest.raises(ValueError, match=rf"\[loss_and_gradient\] .*{message}"):
        loss_and_gradient(logits, targets, mx.ones(targets.shape), softcap, implementation="simulator")


def test_a_scale_of_another_shape_or_dtype_is_named() -> None:
    logits, targets = mx.zeros((4, 8)), mx.zeros((4,), mx.int32)
    for scale in (mx.ones((1,)), mx.ones((4,), mx.bfloat16)):
        with pytest.raises(ValueError, match=r"\[loss_and_gradient\] expected scale \(4,\) of float32, got"):
            loss_and_gradient(logits, targets, scale, 15.0, implementation="simulator")
