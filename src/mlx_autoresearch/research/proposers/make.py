"""Makes the proposer that a search's settings ask for."""

from __future__ import annotations

from mlx_autoresearch.trials.limits import default_memory_mb

from ..settings import SearchConfig
from .base import Proposer
from .settings import AgentSettings, ScriptSettings


def make_proposer(config: SearchConfig) -> Proposer:
    """A proposer that has not been told any record yet."""
    settings = config.proposer
    if isinstance(settings, ScriptSettings):
        from .script import ScriptProposer

        return ScriptProposer(settings)
    if isinstance(settings, AgentSettings):
        from .agent import AgentProposer

        memory_mb = config.limits.memory_mb or default_memory_mb()
        return AgentProposer(settings, None if config.decision.greedy else config.seeds.most, memory_mb)
    from .search import SearchProposer  # Optuna takes a while to import

    return SearchProposer(settings, config.start)
