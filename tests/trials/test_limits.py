from __future__ import annotations

import pytest
from pydantic import ValidationError

from mlx_autoresearch.config.settings import Config, TrainConfig
from mlx_autoresearch.research.settings import SearchConfig
from mlx_autoresearch.trials import limits
from mlx_autoresearch.trials.limits import Limits, default_memory_mb


def test_a_training_that_does_not_score_has_no_time_for_it() -> None:
    given = Limits(startup_seconds=10, evaluate_seconds=1000)
    budget = 1.1 * Config().train.time_budget + 5
    assert given.wall_seconds(Config(), score=False) == pytest.approx(10 + budget)
    assert given.wall_seconds(Config(), score=True) == pytest.approx(1010 + budget)


def test_a_training_by_steps_has_a_limit_of_its_own() -> None:
    config = Config(train=TrainConfig(max_steps=3))
    assert Limits(startup_seconds=10, training_seconds=20).wall_seconds(config, score=False) == 30


def test_a_search_has_the_same_limits_as_a_trial() -> None:
    assert SearchConfig.model_fields["limits"].default == Limits()
    with pytest.raises(ValidationError):
        Limits(startup_seconds=0)


def test_the_default_counts_what_a_container_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "usable_memory", lambda: 10 * 2**30)
    assert default_memory_mb() == pytest.approx(8 * 2**10)
