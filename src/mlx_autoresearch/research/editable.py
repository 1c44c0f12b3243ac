"""What an experiment may change: its configuration, and the code of the recipe and of the kernels."""

from __future__ import annotations

from fnmatch import fnmatchcase

from mlx_autoresearch.trials.overlay import KERNELS, PACKAGE, RECIPE

EXPERIMENT = "research/experiment.yaml"  # the experiment's configuration
CODE = [f"src/{PACKAGE}/{RECIPE}", KERNELS]  # folders
EDITABLE = (EXPERIMENT, *(f"{folder}/**" for folder in CODE))


def is_editable(path: str) -> bool:
    """Whether an experiment may change this file of the repository. Never git's own files."""
    if any(part.lower().startswith(".git") for part in path.split("/")):
        return False
    return any(fnmatchcase(path, pattern) for pattern in EDITABLE)
