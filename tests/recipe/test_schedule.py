from __future__ import annotations

import pytest

from mlx_autoresearch.config.settings import TrainConfig
from mlx_autoresearch.recipe.schedule import lr_multiplier, muon_momentum, weight_decay_multiplier


@pytest.mark.parametrize(
    "progress, settings, expected",
    [
        (0.0, {}, 1.0),
        (0.49, {}, 1.0),
        (0.5, {}, 1.0),
        (0.75, {}, 0.5),
        (1.0, {}, 0.0),
        (0.0, {"warmup_ratio": 0.2}, 0.0),
        (0.1, {"warmup_ratio": 0.2}, 0.5),
        (0.2, {"warmup_ratio": 0.2}, 1.0),
        (1.0, {"final_lr_frac": 0.1}, 0.1),
        (0.75, {"final_lr_frac": 0.1}, 0.55),
        (1.0, {"warmdown_ratio": 0.0}, 1.0),
        (0.5, {"warmdown_ratio": 1.0}, 0.5),
    ],
)
def test_lr_multiplier(progress, settings, expected) -> None:
    train = TrainConfig(**settings)
    got = lr_multiplier(progress, train.warmup_ratio, train.warmdown_ratio, train.final_lr_frac)
    assert got == pytest.approx(expected)


@pytest.mark.parametrize("step, expected", [(0, 0.85), (1, 0.85 + 0.1 / 300), (150, 0.9), (300, 0.95), (9999, 0.95)])
def test_muon_momentum(step, expected) -> None:
    train = TrainConfig()
    assert muon_momentum(step, *train.muon_momentum, train.muon_momentum_steps) == pytest.approx(expected)


def test_weight_decay_ends_at_zero() -> None:
    assert [weight_decay_multiplier(p) for p in (0.0, 0.25, 1.0)] == [1.0, 0.75, 0.0]
