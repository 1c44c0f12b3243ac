from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlx_autoresearch.recipe import loss as loss_module
from mlx_autoresearch.recipe.loss import linear_cross_entropy, softcapped
from tests.support.arrays import normal, relative_error
from tests.support.rounding import check_within, rounding


def exact(x, w, y, softcap, ignore_index=-1):
    """Loss, dx and dW in float64, from the full logits."""
    x, w = np.array(x, np.float64), np.array(w, np.float64)
    y = np.array(y)
    keep = y != ignore_index
    labels = np.where(keep, y, 0)
    z = x @ w.T
    t = np.tanh(z / softcap) if softcap else None
    s = softcap * t if softcap else z
    p = np.exp(s - s.max(axis=1, keepdims=True))
    total = p.sum(axis=1, keepdims=True)
    losses = np.log(total[:, 0]) + s.max(axis=1) - s[np.arange(len(y)), labels]
    onehot = np.eye(w.shape[0])[labels]
    dz = (p / total - onehot) * (keep / max(keep.sum(), 1))[:, None]
    if softcap:
        dz *= 1 - t * t
    return (losses * keep).sum() / max(keep.sum(), 1), dz @ w, dz.T @ x


def loss_and_gradients(inputs, y, softcap=15.0, function=linear_cross_entropy) -> dict[str, mx.array]:
    f = mx.value_and_grad(lambda x, w: function(x, w, y, softcap), argnums=(0, 1))
    loss, (dx, dw) = f(inputs["x"], inputs["w"])
    return {"loss": loss, "dx": dx, "dw": dw}


def composed_loss_and_gradients(inputs, y, softcap=15.0) -> dict[str, mx.array]:
    """By MLX's own operations, from the full logits: the path whose rounding sets the budgets."""

    def loss(x, w, y, softcap):
        z = x @ w.T
        return nn.losses.cross_entropy(softcap * mx.tanh(z / softcap) if softcap else z, y, reduction="mean")

    return loss_and_gradients(inputs, y, softcap, loss)


@pytest.mark.parametrize("softcap", [15.0, 2.0, None])
@pytest.mark.parametrize("N, V, C, scale", [(1, 3, 2, 1.0), (7, 257, 33, 1.0), (65, 300, 16, 4.0)])
def test_value_and_gradients_against_float64(N, V, C, scale, softcap) -> None:
    x, w = normal((N, C), 0, scale), normal((V, C), 1)
    y = mx.array(np.random.default_rng(2).integers(0, V, N))
    expected = dict(zip(("loss", "dx", "dw"), exact(x, w, y, softcap), strict=True))
    got = loss_and_gradients({"x": x, "w": w}, y, softcap)
    assert got["loss"].dtype == mx.float32
    composed = rounding(lambda inputs: composed_loss_and_gradients(inputs, y, softcap), {"x": x, "w": w})
    check_within(got, expected, composed)


def test_chunks_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = normal((50, 8), 0), normal((31, 8), 1)
    y = mx.array(np.random.default_rng(2).integers(0, 31, 50))
    inputs = {"x": x, "w": w}
    whole = loss_and_gradients(inputs, y)
    composed = rounding(lambda inputs: composed_loss_and_gradients(inputs, y), inputs)
    for rows in (1, 7, 49, 50):  # also a last chunk that is not full
        monkeypatch.setattr(loss_module, "_chunk_elements", lambda n=31 * rows: n)
        check_within(loss_and_gradients(inputs, y), whole, composed)


def test_ignored_targets_cost_nothing_and_move_nothing() -> None:
    x, w = normal((6, 8), 0), normal((11, 8), 1)
    y = mx.array([3, -1, 4, -1, 10, 0])
    value, (dx, _) = mx.value_and_grad(lambda x, w: linear_cross_entropy(x, w, y, 15.0), argnums=(0, 1))(x, w)
    assert value.item() == pytest.approx(exact(x, w, y, 15.0)[0], rel=3e-6)
    assert np.abs(np.array(dx)[[1, 3]]).max() == 0
    nothing = linear_cross_entropy(x, w, mx.full((6,), -1), 15.0)
    assert nothing.item() == 0.0


def test_the_gradient_scales_with_what_follows_the_loss() -> None:
    x, w, y = normal((5, 4), 0), normal((9, 4), 1), mx.array([0, 1, 2, 3, 8])
    once = mx.grad(lambda x: linear_cross_entropy(x, w, y, 15.0))(x)
    tripled = mx.grad(lambda x: 3 * linear_cross_entropy(x, w, y, 15.0))(x)
    assert relative_error(tripled, 3 * np.array(once)) < 1e-6


def test_zero_logits_cost_ln_v() -> None:
    value = linear_cross_entropy(mx.zeros((4, 8)), normal((100, 8), 0), mx.array([1, 2, 3, 4]), 15.0)
    assert value.item() == pytest.approx(math.log(100), rel=1e-6)


def test_huge_logits_stay_finite() -> None:
    x, w, y = normal((4, 8), 0, 1e6), normal((9, 8), 1), mx.array([0, 1, 2, 3])
    for softcap in (15.0, None):
        value, dx = mx.value_and_grad(lambda x, c=softcap: linear_cross_entropy(x, w, y, c))(x)
        assert math.isfinite(value.item())
        assert np.isfinite(np.array(dx)).all()


def test_half_precision_features_get_half_precision_gradients() -> None:
    x, w, y = normal((6, 8), 0).astype(mx.bfloat16), normal((11, 8), 1), mx.array([3, 1, 4, 1, 10, 0])
    value, (dx, dw) = mx.value_and_grad(lambda x, w: linear_cross_entropy(x, w, y, 15.0), argnums=(0, 1))(x, w)
    assert (value.dtype, dx.dtype, dw.dtype) == (mx.float32, mx.bfloat16, mx.float32)
    expected = exact(x.astype(mx.float32), w, y, 15.0)
    assert value.item() == pytest.approx(expected[0], rel=1e-2)
    assert relative_error(dx.astype(mx.float32), expected[1]) < 2e-2


def test_softcapped_is_bounded_and_float32() -> None:
    z = mx.array([-1e9, -3.0, 0.0, 3.0, 1e9])
    assert relative_error(softcapped(z, 15.0), 15 * np.tanh(np.array(z, np.float64) / 15)) < 1e-6
    assert mx.array_equal(softcapped(z, None), z)
    assert softcapped(z.astype(mx.bfloat16), None).dtype == mx.float32


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"expected x \(N, C\)"):
        linear_cross_entropy(mx.zeros((4, 8)), mx.zeros((9, 7)), mx.zeros((4,), mx.int32), 15.0)
