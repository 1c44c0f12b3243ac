"""The parent's clock of a training: what the training reports may be false, but when it arrives is measured here."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from mlx_autoresearch.config.settings import Config

from .limits import BUDGET_SHARE, JUDGED_SLACK

# {"event": "start"}, {"event": "step", "step": 1, "loss": 2.0, "remaining": 3.0}, {"event": "ended", "weights": their
# digest} (after the last step, before anything of the recipe runs again), {"event": "trained"} (it scores now)
# and {"event": "finish"}, from the training; {"event": "waiting", "message": a line for the user} and
# {"event": "waited", "seconds": 2.0}, from `run_trial`, and {"event": "again", "message": why} when it repeats a trial.
Event = Mapping[str, Any]

# The kind of trouble when macOS stopped the work on the GPU: the trial is repeated once, and nobody's idea is to blame.
INTERRUPTED = "gpu"
# The kind when the machine stood still, and when the disk took no more: the trial is repeated a few times.
PAUSED, DISK = "pause", "disk"
NOBODYS = (INTERRUPTED, PAUSED, DISK)  # a trial that ended in one of these says nothing about what was tried

_FOR_DISPLAY = ("start", "step", "trained", "finish")
_HASHING = 0.1  # of the budget
_LONGEST_LINE = 65_536  # characters
_KEPT_EVENTS = 64  # of those that nobody has looked at yet: the newest


class Clock:
    """Counts and times the steps of one training.

    steps: optimizer steps so far. trouble: how the training says that it failed, "kind" and "detail", or empty.
    weights: the digest of those that it ended with; None before that.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.trouble: dict[str, str] = {}
        self.weights: str | None = None
        self._first = self._last = self._longest = self._ended = 0.0
        self._events: deque[Event] = deque(maxlen=_KEPT_EVENTS)

    @property
    def training_seconds(self) -> float:
        """Wall time of all steps but the first, which compiles."""
        return self._last - self._first

    @property
    def judged_seconds(self) -> float:
        """Wall time from the end of the first step until the weights that the training ended with were known."""
        return max(self._last, self._ended) - self._first

    def read(self, descriptor: int) -> None:
        """Read events, a line of JSON each, until the pipe's end; in a thread of its own, which nothing else delays."""
        with os.fdopen(descriptor, errors="replace") as lines:
            for line in iter(lambda: lines.readline(_LONGEST_LINE), ""):
                now = time.monotonic()
                try:
                    event = json.loads(line)
                    name = event["event"]
                except (ValueError, TypeError, KeyError, RecursionError):
                    continue
                if name == "step":
                    self.steps += 1
                    self._longest = max(self._longest, now - self._last) if self._first else 0.0
                    self._first = self._first or now
                    self._last = now
                elif name == "ended":
                    self.weights = str(event.get("weights"))
                    self._ended = now
                elif name == "trouble":
                    self.trouble = {"kind": str(event.get("kind")), "detail": str(event.get("detail"))}
                if name in _FOR_DISPLAY:
                    self._events.append(event)

    def new_events(self) -> Iterator[Event]:
        """The events that have come since the last call; of very many, the newest."""
        while self._events:
            yield self._events.popleft()

    def pause(self, config: Config) -> float:
        """Seconds for which the training stood still, where its budget is in seconds and does not bear that; else 0.

        That is how much longer its longest step took than the others on average: more than a tenth of the budget, more
        than a second, and more than four such steps.
        """
        others = self.steps - 2  # neither the first, which compiles, nor the longest
        if config.train.max_steps is not None or others < 1:
            return 0.0
        usual = (self.training_seconds - self._longest) / others
        pause = self._longest - usual
        borne = max((BUDGET_SHARE - 1) * config.train.time_budget, JUDGED_SLACK, 4 * usual)
        return pause if pause > borne else 0.0

    def beyond_budget(self, config: Config, hashing: float = 0.0) -> str | None:
        """What of the training was more, or less, than `config` allows; None where it kept to it.

        hashing: seconds that the digest of the weights takes, which is made before the training's end; no more than a
        tenth of the budget counts: of weights that do not change it could be made before.
        """
        train = config.train
        allowed = BUDGET_SHARE * train.time_budget + JUDGED_SLACK + min(hashing, _HASHING * train.time_budget)
        if train.max_steps is not None:
            if self.steps != train.max_steps:
                return f"trained {self.steps} steps where {train.max_steps} are allowed"
        elif self.steps < 2:
            return f"no step but the first fitted into {train.time_budget:g} s, and that one is not timed"
        elif self.judged_seconds > allowed:
            return f"trained for {self.judged_seconds:.1f} s where {train.time_budget:g} s are allowed"
        return None
