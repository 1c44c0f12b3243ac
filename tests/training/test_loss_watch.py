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


def test_a_run_that_takes_no_step_any_more_is_ended() -> None:
    """The loss stays as it is, and stays finite, while every gradient overflows float16."""
    watch = LossWatch(V, Path("runs/x"))
    for step in range(1, 40):
        watch.see(step, 4.0, 0)
    for step in range(40, 71):
        watch.see(step, 4.0, step - 39)
    with pytest.raises(LossExploded, match=r"overflowed in the last 32 steps, up to step 71: .*compute_dtype=bfloat16"):
        watch.see(71, 4.0, 32)


def test_steps_skipped_now_and_then_are_no_reason_to_end() -> None:
    watch, skipped = LossWatch(V, Path("runs/x")), 0
    for step in range(1, 500):
        skipped += step % 20 != 0
        watch.see(step, 4.0, skipped)
    with pytest.raises(
        LossExploded, match=r"NaN at step 500: train\.compute_dtype=bfloat16 .* lower the learning rates"
    ):
        watch.see(500, math.nan, skipped)
