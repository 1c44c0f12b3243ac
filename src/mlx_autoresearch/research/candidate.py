"""A candidate: one commit that is to be measured, with all that its trials need to know of it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.ledger.held import remove

from .editable import EXPERIMENT
from .guard import rules
from .guard.integrity import code_hash
from .home import Search
from .workspace import NO_CHANGE, Change


@dataclass(frozen=True)
class Candidate:
    """change: against its parent. config: what its YAML says. code: a hash of its editable code, where it is the code
    that the search was started or resumed with; None where experiments have changed that.
    """

    commit: str
    change: Change
    config: Config
    code: str | None


def candidate_at(search: Search, commit: str) -> Candidate:
    """A kept commit, read from git."""
    folder = search.home / ".code"
    remove(folder)
    try:
        search.workspace.snapshot(commit, folder)
        code = code_hash(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Candidate(commit, NO_CHANGE, rules.read_config(search.workspace.read(commit, EXPERIMENT)), code)
