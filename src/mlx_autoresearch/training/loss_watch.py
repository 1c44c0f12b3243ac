"""Watches the training loss: a run that diverges ends, and one that does not learn is warned about."""

from __future__ import annotations

import math
from pathlib import Path

from mlx_autoresearch.errors import LossExploded

_EXPLODED = 100.0  # nats; a uniform guess over the largest vocabulary costs 11
_STUCK_STEPS = 8
_STUCK_WITHIN = 0.01  # of ln(vocab_size)


class LossWatch:
    """Told the loss of every step of a run.

    vocab_size: a uniform guess costs ln(vocab_size) nats. run: the folder that errors point to.
    """

    def __init__(self, vocab_size: int, run: Path):
        self._uniform = math.log(vocab_size)
        self._run = run
        self._stuck = 0  # steps from the first on, without a gap, whose loss was that of a uniform guess

    def see(self, step: int, loss: float) -> str | None:
        """A warning about the loss of step 1, 2, ..., or None. Raises LossExploded for NaN, infinity or a huge loss."""
        if not math.isfinite(loss) or loss > _EXPLODED:
            what = "is NaN" if math.isnan(loss) else f"exploded to {loss:.3g}"
            remedy = f"lower the learning rates (optimizer.*_lr); the log is in {self._run}"
            raise LossExploded(f"the loss {what} at step {step}: {remedy}")
        if self._stuck == step - 1 and abs(loss - self._uniform) < _STUCK_WITHIN * self._uniform:
            self._stuck = step
        if self._stuck == step == _STUCK_STEPS:
            return (
                f"the loss is still ln(vocab_size) = {self._uniform:.3f} after {step} steps: the model predicts a "
                "uniform distribution; check the learning rates and the kernels"
            )
        return None
