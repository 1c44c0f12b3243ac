"""The budget: one uncounted step, then as many as fit, if any, and speeds that count no step that compiled."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import pytest

from mlx_autoresearch.config.settings import TrainConfig
from mlx_autoresearch.recipe import interface
from mlx_autoresearch.training import clock as clock_module
from mlx_autoresearch.training import loop as loop_module
from mlx_autoresearch.training import trainer
from mlx_autoresearch.training.clock import Clock
from mlx_autoresearch.training.compilation import Compilation
from mlx_autoresearch.training.progress import Reporter
from tests.support.runs import StopAfter, make_config, quiet, train

COMPILING = 100.0  # seconds


def run_steps(clock: Clock, *seconds: float) -> Clock:
    for taken in seconds:
        clock.count(taken)
    return clock


@pytest.fixture
def steps_take(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Makes every step take so many seconds by the clock, and the first of every training COMPILING more."""
    now = [0.0]
    real = interface.make_step

    def at(seconds: float) -> None:
        def make_step(*arguments):
            step, calls = real(*arguments), iter(range(1000))

            def timed(batches) -> mx.array:
                loss = step(batches)
                now[0] += seconds if next(calls) else seconds + COMPILING
                return loss

            return timed

        for module in (clock_module, loop_module, trainer):
            monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
        monkeypatch.setattr(interface, "make_step", make_step)
        monkeypatch.setattr(Compilation, "seconds", lambda self: COMPILING)

    return at


@pytest.mark.parametrize("seconds, budget, steps", [(2.0, 10.0, 6), (3.0, 10.0, 4), (1.0, 1.0, 2)])
def test_the_clock_is_honest(corpus: Path, tmp_path: Path, steps_take, seconds, budget, steps) -> None:
    """One uncounted step, then as many as fit into the budget, and never more."""
    config = make_config(corpus, max_steps=None, time_budget=budget)
    steps_take(seconds)
    run, summary = train(config, tmp_path)
    assert summary["num_steps"] == steps
    assert summary["training_seconds"] == (steps - 1) * seconds
    assert summary["total_seconds"] == COMPILING + steps * seconds
    assert summary["tokens_per_second"] == 256 / seconds
    assert [r["progress"] for r in run.metrics()][:2] == [0.0, 0.0]
    assert run.metrics()[-1]["progress"] == pytest.approx((steps - 2) * seconds / budget)


def test_where_no_second_step_fits_none_is_begun_and_one_line_says_so(corpus: Path, tmp_path: Path, steps_take) -> None:
    steps_take(70.0)
    said = io.StringIO()
    run, summary = train(make_config(corpus, max_steps=None, time_budget=60.0), tmp_path, Reporter(said))
    assert (summary["num_steps"], len(run.metrics()), summary["training_seconds"]) == (1, 1, 0.0)
    assert summary["val_bpb"] > 0
    (warning,) = [line for line in said.getvalue().splitlines() if "no second" in line]
    assert "a step takes about 70 s, so no second one fits into train.time_budget=60: raise it, or lower" in warning


def test_one_step_that_was_asked_for_is_no_surprise(corpus: Path, tmp_path: Path, steps_take) -> None:
    steps_take(70.0)
    said = io.StringIO()
    train(make_config(corpus, max_steps=1), tmp_path, Reporter(said))
    assert "no second" not in said.getvalue()


def test_the_first_step_is_judged_without_its_compilation() -> None:
    """By what the compilers took, where that is known, and by the micro-batches after the first."""
    known = loop_module._without_compilation
    assert known(100.0, 93.0, [0.0]) == 7.0
    assert known(100.0, None, [0.0, 80.0]) is None
    assert known(100.0, None, [0.0, 80.0, 85.0, 90.0]) == 20.0
    assert known(100.0, 70.0, [0.0, 80.0, 85.0, 90.0]) == 20.0
    assert known(100.0, 101.0, [0.0]) == 0.0


def test_a_first_step_of_unknown_length_leaves_room_for_a_second() -> None:
    clock = Clock(TrainConfig(time_budget=10.0), started=0.0)
    clock.count(COMPILING)
    assert not clock.over()
    clock.count(12.0)
    assert clock.over()


def test_what_the_first_step_took_is_known_after_a_resume() -> None:
    first = Clock(TrainConfig(time_budget=10.0), started=0.0)
    first.count(COMPILING, 12.0)
    second = Clock(TrainConfig(time_budget=10.0), started=0.0)
    second.load_state_dict(first.state_dict())
    assert first.over() and second.over()
    second.train = TrainConfig(time_budget=13.0)
    assert not second.over()


def test_no_step_that_compiled_counts_in_the_speed_of_a_resumed_run(corpus: Path, tmp_path: Path, steps_take) -> None:
    steps_take(2.0)
    whole = train(make_config(corpus, max_steps=9), tmp_path / "whole")[1]
    with pytest.raises(KeyboardInterrupt):
        train(make_config(corpus, max_steps=9), tmp_path / "parts", StopAfter(4))
    (folder,) = (tmp_path / "parts").iterdir()
    resumed = trainer.resume(folder, reporter=quiet())
    for key in ("tokens_per_second", "mfu_percent", "training_seconds", "num_steps"):
        assert resumed[key] == pytest.approx(whole[key])
    assert whole["tokens_per_second"] == pytest.approx(128.0)
    assert resumed["total_seconds"] == 2 * COMPILING + 9 * 2.0


def test_a_budget_in_steps() -> None:
    clock = run_steps(Clock(TrainConfig(max_steps=4), started=0.0), COMPILING, 2.0, 3.0)
    assert (clock.step, clock.progress(), clock.remaining(), clock.over()) == (3, 0.75, 3.0, False)
    assert run_steps(clock, 1.0).over()


def test_a_budget_in_seconds() -> None:
    clock = Clock(TrainConfig(time_budget=10.0), started=0.0)
    assert (clock.progress(), clock.remaining(), clock.over(), clock.tokens_per_second()) == (0.0, 10.0, False, 0.0)
    run_steps(clock, COMPILING)
    assert (clock.progress(), clock.remaining(), clock.over(), clock.tokens_per_second()) == (0.0, 10.0, False, 0.0)
    run_steps(clock, 4.0)
    assert (clock.progress(), clock.remaining(), clock.over()) == (0.4, 6.0, False)
    run_steps(clock, 4.0)
    assert (clock.progress(), clock.remaining(), clock.over()) == (0.8, 2.0, True)
    run_steps(clock, 4.0)
    assert (clock.progress(), clock.remaining(), clock.over()) == (1.0, 0.0, True)


def test_a_process_that_takes_over_is_charged_a_usual_step_for_compiling() -> None:
    first = run_steps(Clock(TrainConfig(max_steps=9), started=0.0), COMPILING, 2.0, 3.0)
    second = Clock(TrainConfig(max_steps=9), started=time.perf_counter())
    second.load_state_dict(first.state_dict())
    assert run_steps(second, COMPILING).training_seconds == 2.0 + 3.0 + 3.0
    assert run_steps(second, 4.0).training_seconds == 2.0 + 3.0 + 3.0 + 4.0
    assert (second.step, second.timed_steps, second.last_seconds) == (5, 4, 4.0)


def test_a_checkpoint_after_the_first_step_leaves_no_step_to_charge_by() -> None:
    """Then the second process compiles for free, too, and its first step is in no speed."""
    first = run_steps(Clock(TrainConfig(max_steps=9), started=0.0), COMPILING)
    second = Clock(TrainConfig(max_steps=9), started=0.0)
    second.load_state_dict(first.state_dict())
    run_steps(second, COMPILING, 2.0)
    assert (second.step, second.training_seconds, second.timed_steps) == (3, 2.0, 1)
    assert second.tokens_per_second() == TrainConfig().total_batch_size / 2.0


def test_a_checkpoint_of_the_version_before_is_taken() -> None:
    old = {"step": 5, "training_seconds": 8.0, "total_seconds_before": 110.0, "last_seconds": 2.0}
    clock = Clock(TrainConfig(max_steps=9), started=0.0)
    clock.load_state_dict(old)
    assert clock.tokens_per_second() == 4 * TrainConfig().total_batch_size / 8.0
    with pytest.raises(KeyError):
        clock.load_state_dict({"step": 5})
