"""The evaluator's arithmetic on logits that try to break it, beside the same in float64."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlx_autoresearch.errors import MetricRefused
from mlx_autoresearch.metric import bits
from mlx_autoresearch.metric.bits import evaluate_bpb

V, T, SEEDS = 64, 16, 200
TOKEN_BYTES = np.ones(V, np.int32)
LARGEST = 0.01 / np.finfo(np.float32).eps


class Given:
    """The same logits (T, V) for every row, whatever was read: what they are worth is easy to say."""

    def __init__(self, logits: np.ndarray, dtype: mx.Dtype = mx.float32):
        self.rows = mx.array(logits.astype(np.float32)).astype(dtype)

    def hidden(self, idx: mx.array) -> mx.array:
        return mx.broadcast_to(mx.eye(T), (*idx.shape, T)).astype(self.rows.dtype)

    def logits(self, hidden: mx.array) -> mx.array:
        return mx.take(self.rows, hidden.argmax(axis=-1), axis=0)


def nats(model: Given) -> float:
    tokens = np.tile(np.concatenate([[0], np.arange(1, T + 1)]), 4).astype(np.uint16)
    offsets = np.arange(5) * (T + 1)
    got = evaluate_bpb(model, tokens, offsets, TOKEN_BYTES, eval_tokens=10**6, sequence_len=T)
    return got.nats / 4


def exact(model: Given) -> float:
    """In float64, of the logits as the model's dtype has them."""
    logits = np.array(model.rows.astype(mx.float32)).astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinite ones have no worth
        below = logits - logits.max(axis=-1, keepdims=True)
    return float(sum(np.log(np.exp(below).sum(-1)) - below[np.arange(T), np.arange(1, T + 1)]))


def hostile(seed: int) -> np.ndarray:
    """Logits of any size, spread and pattern."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((T, V)) * 10.0 ** rng.uniform(-8, 6)
    logits += rng.choice([0.0, 1.0, -1.0]) * 10.0 ** rng.uniform(0, 9)  # the same for all: worth nothing
    if rng.random() < 0.3:
        logits[:, rng.integers(V, size=V // 2)] = rng.choice([-1e30, -3e38, -1e5])  # masked
    if rng.random() < 0.3:
        logits[np.arange(T), np.arange(1, T + 1)] += 10.0 ** rng.uniform(-3, 5)  # a model that knows
    return logits


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
def test_hostile_logits_are_worth_what_float64_says_or_are_refused(dtype: mx.Dtype) -> None:
    scored = refused = 0
    for seed in range(SEEDS):
        model = Given(hostile(seed), dtype)
        largest = np.abs(np.array(model.rows.astype(mx.float32)).max(axis=-1)).max()
        try:
            found = nats(model)
        except MetricRefused:
            refused += 1
            worth = exact(model)
            assert largest > LARGEST or not np.isfinite(worth) or worth > np.finfo(np.float32).max
            continue
        scored += 1
        assert largest <= LARGEST
        assert found >= 0
        assert found == pytest.approx(exact(model), rel=1e-5, abs=1e-4)
    assert min(scored, refused) > SEEDS // 10, "both are tried"


@pytest.mark.parametrize("size", [1e9, -1e9, 1e20, 3e38, 1e5])
def test_a_number_added_to_all_logits_gains_nothing(size: float) -> None:
    """In float32 it used to cancel all that was there: log V + 1e9 - 1e9 is 0."""
    with pytest.raises(MetricRefused, match="too large for float32"):
        nats(Given(np.full((T, V), size)))


def test_what_float32_can_carry_is_scored() -> None:
    assert nats(Given(np.full((T, V), 8e4))) == pytest.approx(T * np.log(V), rel=1e-6)
    masked = np.zeros((T, V))
    masked[:, V // 2 :] = -1e30
    assert nats(Given(masked)) == pytest.approx(T * np.log(V / 2), rel=1e-6)


@pytest.mark.parametrize("V", [8192, 65_521])
@pytest.mark.parametrize("logit", [-16.64, -16.6])
def test_many_unlikely_tokens_are_worth_what_they_are_together(V: int, logit: float) -> None:
    """MLX on CPUs adds them to the likely one, one by one: each used to be lost, or to count twice."""
    logits = np.full((1, V), logit, np.float32)
    logits[0, 0] = 0
    nats, _ = bits._cross_entropy(mx.array(logits), mx.zeros((1, 1), mx.int32))
    assert nats.item() == pytest.approx(np.log(np.exp(logits.astype(np.float64)).sum()), abs=3e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", [(0, 1), (T - 1, V - 1)])
def test_one_logit_that_is_no_number_is_enough(bad: float, place: tuple[int, int]) -> None:
    logits = np.zeros((T, V))
    logits[place] = bad
    with pytest.raises(MetricRefused, match="not finite"):
        nats(Given(logits))


def test_the_sum_of_a_rows_probabilities_is_one() -> None:
    """As the evaluator computes them, for every label of a row."""
    for seed in range(20):
        logits = np.clip(hostile(seed), -3e38, 8e4)[:1].astype(np.float32)
        labels = mx.arange(V).reshape(V, 1)
        losses, _ = bits._cross_entropy(mx.array(np.repeat(logits, V, axis=0)), labels)
        assert np.exp(-np.array(losses, np.float64)).sum() == pytest.approx(1, abs=1e-4)
