"""What a proposer is given, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.ledger.ledger import Record


@dataclass(frozen=True)
class Proposal:
    """A change with a one-line hypothesis.

    kind: what sort of change it is, for "which kinds paid off". overrides: dotted configuration keys and their new
    values. patch: a unified diff to apply. edited_in_place: the proposer has edited the worktree itself.
    """

    hypothesis: str
    kind: str
    overrides: dict[str, Any] = field(default_factory=dict)
    patch: str | None = None
    edited_in_place: bool = False


@dataclass(frozen=True)
class Context:
    """What there is to start from.

    number: of the experiment to propose. best: the kept record that the branch stands on. history: all records.
    worktree: a clean checkout of the best. folder: experiments/NNNN, for what the proposer wants to keep. config: the
    best's. allowed: patterns of files that may change. frozen: configuration keys that must not.
    mark: for the processes that the proposer starts; see `sandbox.Running`.
    """

    number: int
    best: Record
    history: list[Record]
    worktree: Path
    folder: Path
    config: Config
    allowed: list[str]
    frozen: list[str]
    mark: str = "proposer"


class ProposalFailed(Exception):
    """The proposer came to nothing this time; the message is one line. kind: "timeout", "exception" or "no change"."""

    def __init__(self, kind: str, detail: str):
        super().__init__(detail)
        self.kind, self.detail = kind, detail


class Proposer(Protocol):
    """Proposes one experiment after the other. It is rebuilt on resume from the ledger alone: `told` is replayed."""

    name: str

    def propose(self, context: Context) -> Proposal | None:
        """The next change; None when there is nothing more to propose. Raises ProposalFailed."""
        ...

    def told(self, record: Record) -> None:
        """Learn what became of an experiment; called once for each record of the ledger, in order."""
        ...
