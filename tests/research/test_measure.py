"""What a search allows its trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.ledger.ledger import Trial
from mlx_autoresearch.research.home import Search
from mlx_autoresearch.trials.limits import Limits
from tests.support.laboratory import free_trial, make_search, run_search

STEP = {"hypothesis": "a lower learning rate", "overrides": {"optimizer.matrix_lr": 0.02}}


def test_a_trial_may_take_a_few_times_what_the_start_took_but_for_what_comes_before_its_first_step(
    repository: Path, tiny: Config
) -> None:
    """A changed kernel is compiled and measured there, for every shape, which the starting point had done before."""
    given: list[Limits] = []

    def trial(*arguments: Any, limits: Limits, **options: Any) -> Trial:
        given.append(limits)
        return free_trial(*arguments, limits=limits, **options)

    config = make_search(tiny, [STEP], seeds={"baseline": 3, "best": 1, "most": 3})
    search = Search.start(config, repository / "runs", repository, run_trial=trial)
    run_search(search)
    first, last = given[0], given[-1]
    assert last.startup_seconds == first.startup_seconds == 300
    assert last.training_seconds < 100 < first.training_seconds
    assert last.evaluate_seconds < 100 < first.evaluate_seconds
