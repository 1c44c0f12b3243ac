"""Who proposes the next experiment: a search, a script, or a coding agent."""

from __future__ import annotations

from ..settings import Agent, ResearchConfig, Script
from .base import Context, Proposal, ProposalFailed, Proposer

__all__ = ["Context", "Proposal", "ProposalFailed", "Proposer", "make_proposer"]


def make_proposer(research: ResearchConfig) -> Proposer:
    """The proposer that a research file asks for."""
    settings = research.proposer
    if isinstance(settings, Script):
        from .script import ScriptProposer

        return ScriptProposer(settings)
    if isinstance(settings, Agent):
        from .agent import AgentProposer

        return AgentProposer(settings, research)
    from .search import SearchProposer  # Optuna takes a while to import

    return SearchProposer(settings, research.start)
