"""Nothing that an untrusted training sends stops the clock, and nobody who looks at its events holds it up."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mlx_autoresearch.config.settings import Config, TrainConfig
from mlx_autoresearch.research.view import step_text
from mlx_autoresearch.trials.clock import Clock

STEP = b'{"event": "step", "step": 1, "loss": 2, "remaining": 3}\n'


@contextmanager
def reading(clock: Clock) -> Iterator[int]:
    """The pipe's end that a training writes to."""
    read, write = os.pipe()
    reader = threading.Thread(target=clock.read, args=(read,))
    reader.start()
    try:
        yield write
    finally:
        os.close(write)
        reader.join(20)
        assert not reader.is_alive()


def test_no_event_stops_the_clock() -> None:
    clock = Clock()
    endless = b'{"event": "step", "step": Infinity, "loss": NaN, "remaining": 1}\n'
    with reading(clock) as write:
        for line in (STEP, b"[" * 60_000 + b"\n", b"x" * 200_000 + b"\n", b'["event"]\n', b"\xff\n", endless):
            os.write(write, line)
        time.sleep(0.05)
        os.write(write, STEP)
    assert clock.steps == 3
    assert clock.training_seconds > 0.04
    assert [step_text(event) for event in clock.new_events()][::2] == ["step 1, loss 2.000, 3 s left"] * 2


def test_events_that_nobody_looks_at_neither_block_the_training_nor_pile_up() -> None:
    clock = Clock()
    with reading(clock) as write:
        for number in range(5000):  # several times what a pipe holds
            os.write(write, json.dumps({"event": "step", "step": number}).encode() + b"\n")
    assert clock.steps == 5000
    kept = [event["step"] for event in clock.new_events()]
    assert kept == list(range(5000 - len(kept), 5000))
    assert 0 < len(kept) < 1000
    assert list(clock.new_events()) == []


def test_a_training_cannot_pass_its_events_off_as_ours() -> None:
    clock = Clock()
    with reading(clock) as write:
        os.write(write, b'{"event": "waiting", "message": "for you"}\n{"event": {}}\n{"event": "trained"}\n')
    assert list(clock.new_events()) == [{"event": "trained"}]


def test_trouble_is_kept_as_text() -> None:
    clock = Clock()
    with reading(clock) as write:
        os.write(write, b'{"event": "trouble", "kind": 5, "detail": ["x"]}\n')
    assert clock.trouble == {"kind": "5", "detail": "['x']"}


@pytest.mark.parametrize(
    ("train", "steps", "seconds", "excess"),
    [
        (TrainConfig(max_steps=6), 6, 1e6, None),
        (TrainConfig(max_steps=6), 7, 1.0, "trained 7 steps where 6 are allowed"),
        (TrainConfig(max_steps=6), 5, 1.0, "trained 5 steps where 6 are allowed"),
        (TrainConfig(time_budget=10), 999, 11.9, None),
        (TrainConfig(time_budget=10), 999, 12.1, "trained for 12.1 s where 10 s are allowed"),
        (TrainConfig(time_budget=10), 1, 0.0, "no step but the first fitted into 10 s, and that one is not timed"),
    ],
)
def test_the_budget_is_judged_by_this_clock(
    monkeypatch: pytest.MonkeyPatch, train: TrainConfig, steps: int, seconds: float, excess: str | None
) -> None:
    clock = Clock()
    clock.steps = steps
    monkeypatch.setattr(Clock, "judged_seconds", seconds)
    assert clock.beyond_budget(Config(train=train)) == excess


def test_the_time_for_the_digest_of_the_weights_is_not_held_against_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the budget: that of a large table which no step changes can be made before the clock runs."""
    clock = Clock()
    clock.steps = 9
    config = Config(train=TrainConfig(time_budget=10))
    monkeypatch.setattr(Clock, "judged_seconds", 12.5)
    assert clock.beyond_budget(config, 0.6) is None
    assert clock.beyond_budget(config, 0.4) == "trained for 12.5 s where 10 s are allowed"
    monkeypatch.setattr(Clock, "judged_seconds", 13.1)
    assert clock.beyond_budget(config, 60.0) == "trained for 13.1 s where 10 s are allowed"


def test_the_clock_runs_until_the_weights_are_known() -> None:
    clock = Clock()
    with reading(clock) as write:
        os.write(write, STEP + STEP)
        time.sleep(0.05)
        os.write(write, b'{"event": "ended", "weights": "first"}\n')
        time.sleep(0.05)
        os.write(write, b'{"event": "ended", "weights": "second"}\n')
    assert clock.weights == "second"
    assert clock.judged_seconds > 0.09 > clock.training_seconds


@pytest.mark.parametrize(
    ("train", "gaps", "pause"),
    [
        (TrainConfig(time_budget=4), [0.1] * 10 + [5.1] + [0.1] * 10, 5.0),
        (TrainConfig(time_budget=4), [5.1] + [0.1] * 10, 5.0),  # right after the step that compiles
        (TrainConfig(time_budget=60), [0.1] * 10 + [6.2], 6.1),
        (TrainConfig(time_budget=60), [0.1] * 10 + [6.0], 0),  # a tenth of the budget
        (TrainConfig(time_budget=4), [0.1] * 10 + [1.0], 0),  # a second
        (TrainConfig(time_budget=60), [20.0, 28.0, 12.0], 0),  # steps are that long
        (TrainConfig(time_budget=60), [20.0, 111.0], 91.0),
        (TrainConfig(time_budget=4), [9.0], 0),  # nothing to compare with
        (TrainConfig(time_budget=4), [], 0),
        (TrainConfig(max_steps=22), [0.1] * 20 + [5.1], 0),  # as many steps all the same
    ],
)
def test_a_training_that_stood_still_is_noticed(
    monkeypatch: pytest.MonkeyPatch, train: TrainConfig, gaps: list[float], pause: float
) -> None:
    times = iter(itertools.accumulate([100.0, *gaps]))
    monkeypatch.setattr("mlx_autoresearch.trials.clock.time.monotonic", lambda: next(times))
    clock = Clock()
    with reading(clock) as write:
        os.write(write, STEP * (len(gaps) + 1))
    assert clock.pause(Config(train=train)) == pytest.approx(pause)
