"""What one trial may take of the machine; more, and it is killed."""

from __future__ import annotations

from pydantic import Field

from mlx_autoresearch.config.settings import Config, Section
from mlx_autoresearch.machine.memory import usable_memory

# A training by time may take a little longer than its budget: its last step ends late, and its clock is not ours.
BUDGET_SHARE = 1.1
JUDGED_SLACK = 1.0  # seconds; a training beyond this is rejected
KILLED_SLACK = 5.0  # seconds; a process beyond this is killed: it also saves its checkpoint
_MEMORY_SHARE = 0.8


class Limits(Section):
    """What one trial may take; more, and it is killed."""

    startup_seconds: float = Field(default=300.0, gt=0, description="imports, compilation and the first step")
    training_seconds: float = Field(default=86_400.0, gt=0, description="where the start trains by steps, not by time")
    evaluate_seconds: float = Field(default=1800.0, gt=0)
    memory_mb: float | None = Field(default=None, gt=0, description="of the whole process tree, MiB")

    def wall_seconds(self, config: Config, *, score: bool) -> float:
        """Seconds after which a training process is killed. score: it also computes the metric."""
        train = config.train
        by_time = BUDGET_SHARE * train.time_budget + KILLED_SLACK
        training = self.training_seconds if train.max_steps is not None else by_time
        return self.startup_seconds + training + (self.evaluate_seconds if score else 0.0)


def default_memory_mb() -> float:
    """MiB that a trial may take where its settings do not say: 80% of what this machine, or its container, may use.

    On a Mac that is more than Metal recommends, within which a training's arrays must fit: a process's footprint also
    counts Python, and the arrays that MLX keeps for later.
    """
    return _MEMORY_SHARE * usable_memory() / 2**20
