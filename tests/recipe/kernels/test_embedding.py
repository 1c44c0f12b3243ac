"""Embedding kernels: what is looked up, and gradients that are the same every time."""

from __future__ import annotations

import io

import mlx.core as mx
import numpy as np
import pytest

from mlx_autoresearch.recipe import embedding as composed_module
from mlx_autoresearch.recipe.kernels import embedding as embedding_module
from mlx_autoresearch.recipe.kernels.embedding import embedding
from tests.support.arrays import normal

EPSILON = {mx.float32: 2.0**-23, mx.float16: 2.0**-10, mx.bfloat16: 2.0**-7}


def tokens(shape: tuple[int, ...], V: int, seed: int = 0) -> mx.array:
    """Skewed as text is: half of them are token 0."""
    source = np.random.default_rng(seed)
    drawn = source.integers(0, V, shape) * source.integers(0, 2, shape)
    return mx.array(drawn.astype(np.int32))


def composed(ids: mx.array, weight: mx.array, dtype: mx.Dtype) -> mx.array:
    return composed_module.embedding(ids, weight, dtype, implementation="mlx")


@pytest.mark.parametrize(
    ("shape", "V", "C", "dtype"),
    [
        ((1, 1), 1, 8, mx.float32),
        ((2, 7), 5, 33, mx.bfloat16),
        ((1, 33), 70, 96, mx.float16),
        ((2, 97), 11, 130, mx.float32),
        ((1, 257), 40, 64, mx.bfloat16),
    ],
)
def test_rows_and_their_gradient(implementation, shape, V: int, C: int, dtype) -> None:
    ids, weight, dy = tokens(shape, V), normal((V, C), 1), normal((*shape, C), 2).astype(dtype)
    (y,), (gradient,) = mx.vjp(lambda w: embedding(ids, w, dtype, implementation=implementation), [weight], [dy])
    assert y.dtype == dtype and mx.array_equal(y, weight[ids].astype(dtype))
    exact = np.zeros((V, C))
    np.add.at(exact, np.array(ids), np.array(dy.astype(mx.float32)).astype(np.float64))
    (other,), (theirs,) = mx.vjp(lambda w: composed(ids, w, dtype), [weight], [dy])
    assert mx.array_equal(y, other)
    assert gradient.dtype == mx.float32 and gradient.shape == (V, C)
    errors = [np.abs(np.array(g) - exact).max() for g in (gradient, theirs)]
    assert errors[0] <= 3 * errors[1] + 4 * EPSILON[mx.float32] * max(1.0, np.abs(exact).max())


def test_tokens_that_do_not_occur_have_no_gradient(implementation) -> None:
    ids, weight = mx.array([[3, 3, 5]]), normal((9, 16), 0)
    gradient = mx.grad(lambda w: embedding(ids, w, mx.float32, implementation=implementation).sum())(weight)
    assert gradient.sum(axis=1).tolist() == [0, 0, 0, 32, 0, 16, 0, 0, 0]


def test_the_gradient_is_the_same_every_time(implementation) -> None:
    ids, weight, dy = tokens((1, 300), 3), normal((3, 40), 1), normal((1, 300, 40), 2, 1e3)

    def gradient() -> mx.array:
        return mx.vjp(lambda w: embedding(ids, w, mx.float32, implementation=implementation), [weight], [dy])[1][0]

    first = gradient()
    assert all(mx.array_equal(gradient(), first) for _ in range(3))


def test_a_batch_is_sorted_once_for_all_its_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Launches are stood in for, so that what surrounds them can be compiled anywhere."""

    def stand_in(name: str, implementation: str, inputs: dict[str, mx.array], **sizes: int) -> list[mx.array]:
        if name == "embedding_forward":
            return [inputs["weight"][inputs["ids"]]]
        return [mx.zeros((sizes["V"], sizes["C"])) + sum(x.astype(mx.float32).sum() for x in inputs.values())]

    monkeypatch.setattr(embedding_module, "launch", stand_in)

    def loss(tables: list[mx.array], ids: mx.array) -> mx.array:
        rows = [embedding(ids, table, mx.float32, implementation="cuda") for table in tables]
        return sum((x**2).sum() for x in rows)  # type: ignore[return-value]

    gradients = mx.compile(mx.grad(loss))([normal((9, 8), i) for i in range(3)], tokens((2, 5), 9))
    graph = io.StringIO()
    mx.export_to_dot(graph, *gradients)
    assert graph.getvalue().count('"ArgSort"') == graph.getvalue().count('"CumSum"') == 1


@pytest.mark.parametrize("ids_dtype", [mx.uint16, mx.int64, mx.uint32])
def test_any_integers_and_layout(implementation, ids_dtype) -> None:
    ids, weight = tokens((4, 3), 6).astype(ids_dtype).T, normal((8, 6), 1).T
    dy = mx.broadcast_to(normal((8,), 2), (3, 4, 8))
    function = lambda i, w: embedding(i, w, mx.float32, implementation=implementation)  # noqa: E731
    expected = mx.vjp(lambda w: function(mx.contiguous(ids), w), [mx.contiguous(weight)], [mx.contiguous(dy)])
    for f in (function, mx.checkpoint(function)):
        got = mx.vjp(lambda w, f=f: f(ids, w), [weight], [dy])
        assert mx.array_equal(got[0][0], expected[0][0]) and mx.array_equal(got[1][0], expected[1][0])


def test_a_small_table_is_rounded_before_and_a_large_one_after() -> None:
    """The composed twin rounds the smaller of the two; the values are the same."""
    for V in (3, 300):
        ids, weight = tokens((2, 50), V), normal((V, 8), 1)
        assert mx.array_equal(composed(ids, weight, mx.bfloat16), weight[ids].astype(mx.bfloat16))
        gradient = mx.grad(lambda w, ids=ids: composed(ids, w, mx.bfloat16).sum())(weight)
        assert gradient.dtype == mx.float32 and gradient.sum().item() == 8 * 100


@pytest.mark.parametrize(
    ("ids", "weight", "dtype", "message"),
    [
        (mx.zeros((1, 4), mx.int32), mx.zeros((4, 8), mx.bfloat16), mx.bfloat16, "expected weight"),
        (mx.zeros((1, 4), mx.int32), mx.zeros((4,)), mx.float32, r"expected weight \(V, C\)"),
        (mx.zeros((1, 4)), mx.zeros((4, 8)), mx.float32, "of integers, got"),
        (mx.zeros((1, 4), mx.int32), mx.zeros((4, 8)), mx.int32, "expected float32, float16 or bfloat16"),
        (mx.zeros((1, 1), mx.int32), mx.zeros((4, 4)), mx.float32, "at least 8 elements"),
    ],
)
def test_wrong_use_is_named(ids: mx.array, weight: mx.array, dtype: mx.Dtype, message: str) -> None:
    with pytest.raises(ValueError, match=rf"\[embedding\] .*{message}"):
        embedding(ids, weight, dtype, implementation="simulator")
