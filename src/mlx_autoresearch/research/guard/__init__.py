"""The guard: what an experiment may change, and whether anything else has changed."""
