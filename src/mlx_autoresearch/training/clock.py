"""A run's budget, in steps or in seconds of training: how much is used, how much is left, when it is spent."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from mlx_autoresearch.config.settings import TrainConfig


@dataclass
class Clock:
    """Counts a run's steps and the seconds of training that its budget is charged.

    The first step of a process compiles. At the start of a run it is free; after a resume it is charged what the step
    before the checkpoint took.

    No step is begun that would end past a budget in seconds if it took as long as the one before, or, where that one
    compiled, as long as it took without: see `count`.

    started: `time.perf_counter()` when this process began. step: steps done. training_seconds: charged so far.
    timed_steps: steps that they were charged for. last_seconds: what the latest usual step took.
    first_seconds: what the first one took without compilation; 0 where that is not known, and then a second is begun.
    total_seconds_before: wall-clock seconds of earlier processes, from the checkpoint.
    """

    train: TrainConfig
    started: float
    step: int = 0
    training_seconds: float = 0.0
    timed_steps: int = 0
    last_seconds: float = 0.0
    first_seconds: float = 0.0
    total_seconds_before: float = 0.0
    compiled: bool = False

    def count(self, seconds: float, uncompiled: float | None = None) -> None:
        """Add a step that took so many seconds; uncompiled: of a process's first step, without compilation."""
        if self.compiled:
            self.last_seconds = seconds
        elif uncompiled is not None:
            self.first_seconds = uncompiled
        self.compiled = True
        self.step += 1
        self.training_seconds += self.last_seconds
        self.timed_steps += self.last_seconds > 0

    def over(self) -> bool:
        """Whether the budget is spent, or would be exceeded by one more step."""
        if self.train.max_steps is not None:
            return self.step >= self.train.max_steps
        return self.step > 0 and self.training_seconds + self.step_seconds() > self.train.time_budget

    def step_seconds(self) -> float:
        """What the next step is expected to take; 0 where nothing is known of any."""
        return self.last_seconds or self.first_seconds

    def progress(self) -> float:
        """The share of the budget that is used, 0 ... 1."""
        if self.train.max_steps is not None:
            return self.step / self.train.max_steps
        return min(self.training_seconds / self.train.time_budget, 1.0)

    def remaining(self) -> float:
        """Seconds of training that are left; an estimate where the budget is in steps."""
        if self.train.max_steps is not None:
            return (self.train.max_steps - self.step) * self.last_seconds
        return max(0.0, self.train.time_budget - self.training_seconds)

    def tokens_per_second(self) -> float:
        """Over all steps that were charged: none that compiled counts. 0 where there is none."""
        tokens = self.timed_steps * self.train.total_batch_size
        return tokens / self.training_seconds if self.training_seconds else 0.0

    def total_seconds(self) -> float:
        """Wall-clock seconds of the whole run, in this process and in those before it."""
        return self.total_seconds_before + time.perf_counter() - self.started

    def state_dict(self) -> dict[str, Any]:
        """What the next process needs, for the checkpoint."""
        return {
            "step": self.step,
            "training_seconds": self.training_seconds,
            "timed_steps": self.timed_steps,
            "last_seconds": self.last_seconds,
            "first_seconds": self.first_seconds,
            "total_seconds_before": self.total_seconds(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint. Raises KeyError when it lacks an entry."""
        self.step = state["step"]
        self.training_seconds = state["training_seconds"]
        self.timed_steps = state.get("timed_steps", max(0, self.step - 1))  # older checkpoints lack it
        self.last_seconds = state["last_seconds"]
        self.first_seconds = state.get("first_seconds", 0.0)
        self.total_seconds_before = state["total_seconds_before"]
