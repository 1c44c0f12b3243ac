"""At a search's start: whether the recipe declares every setting `recipe.<name>` that the search file names."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.recipe.settings import Settings, recipe_settings

from ..proposers.settings import OptunaSettings
from ..settings import SearchConfig
from ..workspace import Workspace
from .integrity import is_installed


def check_declared(config: SearchConfig, repository: Path) -> None:
    """Raise UserError for a setting that the recipe does not take, in the start, a search space or its moves.

    Not checked where the recipe at HEAD is another one than the installed one: it may declare others, and is not run
    here. Nor are a script's steps, which may bring code of their own.
    """
    with TemporaryDirectory() as folder:
        code = Path(folder, "code")
        workspace = Workspace(repository, Path(folder), config.tag)
        workspace.snapshot(workspace.head, code)
        if not is_installed(code):
            return
    recipe_settings(config.start.recipe)
    proposer = config.proposer
    if not isinstance(proposer, OptunaSettings):
        return
    keys = [*proposer.space, *(key for move in proposer.moves for key in move.overrides)]
    declared = {field.name for field in fields(Settings)}
    for key in keys:
        if key.startswith("recipe.") and key.split(".")[1] not in declared:
            known = f"valid keys: {', '.join(sorted(declared))}" if declared else "this recipe declares no settings"
            raise UserError(f"proposer: unknown key {key}; {known} (they stand in recipe/settings.py)")
