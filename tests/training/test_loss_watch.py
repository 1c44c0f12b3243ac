from __future__ import annotations

import math
from pathlib import Path

import pytest

from mlx_autoresearch.errors import LossExploded
from mlx_autoresearch.training.loss_watch import LossWatch

V = 300
UNIFORM = math.log(V)


def warnings(losses: list[float], first: int = 1) -> list[int]:
    """The steps at which a run with these losses is warned about, from step `first` on."""
    watch = LossWatch(V, Path("runs/x"))
    return [step for step, loss in enumerate(losses, first) if watch.see(step, loss)]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, 101.0])
def test_a_loss_that_no_step_recovers_from_ends_the_run(loss: float) -> None:
    watch = LossWatch(V, Path("runs/x"))
    assert watch.see(1, 99.0) is None
    with pytest.raises(LossExploded, match=r"the loss (is NaN|exploded to .*) at step 2: .* the log is in runs/x"):
        watch.see(2, loss)


def test_a_run_that_starts_uniform_and_stays_so_is_warned_about_once() -> None:
    assert warnings([UNIFORM] * 20) == [8]
    assert warnings([1.009 * UNIFORM] * 20) == [8]
    assert warnings([1.011 * UNIFORM] * 20) == []


def test_a_run_that_learns_or_goes_on_is_not() -> None:
    assert warnings([UNIFORM] * 7 + [0.9 * UNIFORM] + [UNIFORM] * 20) == []
    assert warnings([0.9 * UNIFORM] + [UNIFORM] * 20) == []
    assert warnings([UNIFORM] * 20, first=5) == []  # resumed
