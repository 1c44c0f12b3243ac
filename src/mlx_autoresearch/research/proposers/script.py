"""A fixed list of experiments, for tests and replays."""

from __future__ import annotations

from mlx_autoresearch.ledger.ledger import Record

from .base import Context, Proposal
from .settings import ScriptSettings


class ScriptProposer:
    """Proposes the steps of a script in their order: experiment 1 is the first one."""

    name = "script"
    trusted = True

    def __init__(self, settings: ScriptSettings):
        self._steps = settings.steps

    def propose(self, context: Context) -> Proposal | None:
        """The step with the experiment's number; None after the last."""
        if context.number > len(self._steps):
            return None
        step = self._steps[context.number - 1]
        return Proposal(step.hypothesis, step.kind, dict(step.overrides), step.patch)

    def told(self, record: Record) -> None:
        """Nothing to learn: the step follows from the experiment's number."""
