"""Who proposes the next experiment: a search with Optuna, a script, or a coding agent."""
