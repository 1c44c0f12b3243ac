"""Measuring: every implementation with all that training needs of it, checked, and the best one."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import mlx.core as mx
import pytest

from mlx_autoresearch.kernels import tuning
from mlx_autoresearch.kernels.alternatives import Alternatives
from mlx_autoresearch.kernels.tuning import Measurement, best, forward_backward, measure

X = mx.arange(6.0).reshape(2, 3)


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "SECONDS", 0.0)


def doubling(composed: Any, custom: Any) -> Alternatives:
    return Alternatives("double", composed, custom, (0,), lambda x: (mx.ones(x.shape),))


def test_both_sides_are_timed_and_the_kernel_is_checked() -> None:
    seen = []

    def before(name: str, measured: dict[str, Measurement]) -> None:
        seen.append((name, dict(measured)))

    measured = measure(doubling(lambda x: 2 * x, lambda x, language: 2 * x), (X,), {}, "cuda", before)
    assert list(measured) == ["mlx", "cuda"]
    mlx, cuda = measured.values()
    assert seen == [("cuda", {"mlx": mlx})], "MLX is known before the kernel runs"
    assert mlx.error is None and mlx.failure is None and cuda.failure is None
    assert cuda.error == 0.0
    for side in (mlx, cuda):
        assert side.milliseconds is not None and side.milliseconds > 0
        assert side.peak_mb is not None and side.peak_mb >= 0


@pytest.mark.parametrize(
    ("factor", "failure"), [(2.0, None), (2.1, "its results are wrong"), (float("nan"), "its results are wrong")]
)
def test_wrong_results_are_a_failure(factor: float, failure: str | None) -> None:
    measured = measure(doubling(lambda x: 2 * x, lambda x, language: factor * x), (X,), {}, "cuda")
    assert measured["cuda"].failure == failure
    assert (measured["cuda"].error or 0) > 1 or failure is None


def test_a_wrong_gradient_is_a_failure() -> None:
    wrong = mx.custom_function(lambda x: 2 * x)
    wrong.vjp(lambda x, cotangent, _: 3 * cotangent)
    measured = measure(doubling(lambda x: 2 * x, lambda x, language: wrong(x)), (X,), {}, "cuda")
    assert measured["cuda"].failure == "its results are wrong"


def test_a_failure_is_one_short_line() -> None:
    def fails(x: mx.array, language: str) -> mx.array:
        raise RuntimeError("\x1b[1merror\x1b[0m:\n  " + 1000 * "x")

    failure = measure(doubling(lambda x: 2 * x, fails), (X,), {}, "cuda")["cuda"].failure
    assert failure is not None and failure.startswith("error: xxx") and len(failure) == 300


def test_what_is_measured_is_the_result_and_every_gradient() -> None:
    both = Alternatives("scaled", lambda x, y, n: 2 * x * y.sum(), lambda *_: None, (1,), lambda x, y: (x, y))
    for differentiable, shapes in (((), [(2, 3)]), ((1,), [(2, 3), (4,)]), ((0, 1), [(2, 3), (2, 3), (4,)])):
        operation = replace(both, differentiable=differentiable)
        call = forward_backward(operation, "mlx", (X, mx.ones((4,))), (X,), {"n": 1})
        assert [array.shape for array in call()] == shapes


def test_what_is_measured_draws_no_random_numbers() -> None:
    """They would cost both sides the same, and so hide by how much one is better."""
    pair = Alternatives("pair", lambda x: (2 * x, x.sum()), lambda *_: None, (0,), lambda x: (x,))
    call = forward_backward(pair, "mlx", (X,), (X, mx.array(1.0)), {})
    graph = io.StringIO()
    mx.export_to_dot(graph, *call())
    assert "Random" not in graph.getvalue() and "Compiled" in graph.getvalue()


@pytest.mark.parametrize(
    ("mlx", "cuda", "expected"),
    [
        ((2.0, 10.0), (1.0, 99.0), "cuda"),
        ((1.0, 99.0), (2.0, 10.0), "mlx"),
        ((1.0, 99.0), (1.04, 10.0), "cuda"),
        ((1.04, 10.0), (1.0, 99.0), "mlx"),
        ((None, None, None, "out of memory"), (1.0, 10.0), "cuda"),
        ((1.0, 10.0), (0.5, 10.0, 7.0, "its results are wrong"), "mlx"),
    ],
)
def test_the_best_is_the_fastest_or_at_equal_speed_the_smallest(mlx: tuple, cuda: tuple, expected: str) -> None:
    assert best({"mlx": Measurement(*mlx), "cuda": Measurement(*cuda)}) == expected
