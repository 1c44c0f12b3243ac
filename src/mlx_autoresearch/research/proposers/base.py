"""A proposer's interface: what it is given, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.ledger.ledger import Record


@dataclass(frozen=True)
class Proposal:
    """A change with a one-line hypothesis. A proposer that edits the worktree itself gives neither of the last two.

    kind: what sort of change it is, for "which kinds paid off". overrides: dotted configuration keys and their new
    values. patch: a unified diff to apply.
    """

    hypothesis: str
    kind: str
    overrides: dict[str, Any] = field(default_factory=dict)
    patch: str | None = None


@dataclass(frozen=True)
class Context:
    """What there is to start from.

    number: of the experiment to propose. best: the kept record that the branch stands on. history: all records.
    worktree: a folder with the best's files, there for a proposer that is not trusted. folder: experiments/NNNN, for
    what the proposer wants to keep. config: the best's. mark: for the processes that the proposer starts; see
    `sandbox.Running`.
    """

    number: int
    best: Record
    history: list[Record]
    worktree: Path
    folder: Path
    config: Config
    mark: str = "proposer"


class ProposalFailed(Exception):
    """The proposer has no proposal this time. The message is one line, and `kind` the sort of failure."""

    def __init__(self, kind: Literal["timeout", "exception", "guard"], message: str):
        super().__init__(message)
        self.kind = kind


class Proposer(Protocol):
    """Proposes one experiment after the other. On resume it is made anew, and `told` all records of the ledger.

    trusted: whether it runs installed code only. Otherwise it is watched while it proposes.
    """

    name: str
    trusted: bool

    def propose(self, context: Context) -> Proposal | None:
        """The next change; None when there is nothing more to propose. Raises ProposalFailed."""
        ...

    def told(self, record: Record) -> None:
        """Learn what became of an experiment; called once for each record of the ledger, in order."""
        ...
