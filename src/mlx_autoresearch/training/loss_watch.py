"""Watches the training loss: a run that diverges ends, and one that does not learn is warned about."""

from __future__ import annotations

import math
from pathlib import Path

from mlx_autoresearch.errors import LossExploded

_EXPLODED = 100.0  # nats; a uniform guess over the largest vocabulary costs 11
_STUCK_STEPS = 8
_STUCK_WITHIN = 0.01  # of ln(vocab_size)
_SKIPPED_STEPS = 32  # without a gap: more than it takes to halve any loss scale down to 1


class LossWatch:
    """Told the loss of every step of a run.

    vocab_size: a uniform guess costs ln(vocab_size) nats. run: the folder that errors point to.
    """

    def __init__(self, vocab_size: int, run: Path):
        self._uniform = math.log(vocab_size)
        self._run = run
        self._skipped_steps = 0  # so far
        self._skipped = 0  # up to the latest, without a gap
        self._stuck = 0  # steps from the first on, without a gap, whose loss was that of a uniform guess

    def see(self, step: int, loss: float, skipped_steps: int | None = None) -> str | None:
        """A warning about the loss of step 1, 2, ..., or None.

        skipped_steps: so far, because gradients overflowed float16; None in another precision. Raises LossExploded for
        NaN, infinity or a huge loss, and where no step is taken any more.
        """
        remedy = f"lower the learning rates (optimizer.*_lr); the log is in {self._run}"
        if skipped_steps is not None:
            remedy = f"train.compute_dtype=bfloat16 overflows later than float16; or {remedy}"
        if not math.isfinite(loss) or loss > _EXPLODED:
            what = "is NaN" if math.isnan(loss) else f"exploded to {loss:.3g}"
            raise LossExploded(f"the loss {what} at step {step}: {remedy}")
        skipped, self._skipped_steps = (skipped_steps or 0) > self._skipped_steps, skipped_steps or 0
        self._skipped = self._skipped + 1 if skipped else 0
        if self._skipped == _SKIPPED_STEPS:
            raise LossExploded(
                f"the gradients overflowed in the last {self._skipped} steps, up to step {step}: {remedy}"
            )
        if self._stuck == step - 1 and abs(loss - self._uniform) < _STUCK_WITHIN * self._uniform:
            self._stuck = step
        if self._stuck == step == _STUCK_STEPS:
            return (
                f"the loss is still ln(vocab_size) = {self._uniform:.3f} after {step} steps: the model predicts a "
                "uniform distribution; check the learning rates and the kernels"
            )
        return None
