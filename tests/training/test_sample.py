"""Tokens are drawn as the model's probabilities say."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from mlx_autoresearch.training.sample import next_token


class Biased:
    """Logits of ln(p), whatever the tokens."""

    def __init__(self, p: list[float]):
        self.p = p

    def hidden(self, idx: mx.array) -> mx.array:
        return mx.zeros((*idx.shape, 1))

    def logits(self, hidden: mx.array) -> mx.array:
        return mx.log(mx.array(self.p)) + mx.zeros((*hidden.shape[:-1], len(self.p)))


def test_tokens_are_drawn_as_often_as_the_softmax_says() -> None:
    rng = np.random.default_rng(0)
    p = np.array([0.5, 0.3, 0.2])
    for temperature in (1.0, 0.5):
        expected = p ** (1 / temperature) / (p ** (1 / temperature)).sum()
        drawn = [next_token(Biased(p.tolist()), [0], temperature, rng) for _ in range(2000)]
        assert np.abs(np.bincount(drawn, minlength=3) / 2000 - expected).max() < 0.04
    assert next_token(Biased(p.tolist()), [0], 0.0, rng) == 0
