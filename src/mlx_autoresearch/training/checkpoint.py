"""Saves a training to its run's folder, and restores it, bit for bit."""

from __future__ import annotations

from mlx_autoresearch.errors import UserError

from .clock import Clock
from .run import Run
from .setup import Training


def save(run: Run, training: Training, clock: Clock) -> None:
    """Write everything that an exact continuation needs."""
    run.save_checkpoint(training.model, training.optimizer, clock.state_dict() | training.state_dict())


def restore(run: Run, training: Training, clock: Clock) -> None:
    """Go on from the run's checkpoint, and forget what was logged after it. Raises UserError where it is impossible."""
    state = run.load_checkpoint(training.model, training.optimizer)
    try:
        training.load_state_dict(state)
        clock.load_state_dict(state)
    except (KeyError, TypeError):
        raise UserError(f"the checkpoint in {run.path} is of another version: start a new run") from None
    run.truncate_metrics(clock.step)
