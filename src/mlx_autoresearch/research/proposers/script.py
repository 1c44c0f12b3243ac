"""A fixed list of experiments: for tests, and to replay what somebody found."""

from __future__ import annotations

from mlx_autoresearch.ledger.ledger import Record

from ..settings import Script
from .base import Context, Proposal


class ScriptProposer:
    """Proposes the steps of a script in their order: experiment 1 is the first one."""

    name = "script"

    def __init__(self, settings: Script):
        self._steps = settings.steps

    def propose(self, context: Context) -> Proposal | None:
        """The step with the experiment's number; None after the last."""
        if context.number > len(self._steps):
            return None
        step = self._steps[context.number - 1]
        return Proposal(step.hypothesis, step.kind, dict(step.overrides), step.patch)

    def told(self, record: Record) -> None:
        """Nothing to learn: the number of an experiment says it all."""
