"""Settings that this recipe adds to the configuration, under `recipe:` in its YAML. It has none yet.

To add one, declare a field of `Settings` with a default that changes nothing, and check its range in `__post_init__`:

    z_loss: float = 0.0

    def __post_init__(self):
        if self.z_loss < 0:
            raise ValueError(f"z_loss must be at least 0, got {self.z_loss}")

`recipe.z_loss: 1e-4` then sets it, and the model reads `self.settings.z_loss`; wherever there is a configuration,
`recipe_settings(config.recipe)` gives the same. Types: bool, int, float, str, None, Literal, list, tuple and unions of
them.
"""

# No `from __future__ import annotations` here: a setting's type must be the type itself, which is never evaluated text.

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_autoresearch.config.recipe_section import read_settings


@dataclass(frozen=True)
class Settings:
    """The recipe's own settings, by their names under `recipe:`."""


def recipe_settings(section: Mapping[str, Any]) -> Settings:
    """The settings in a section `recipe:`. Raises UserError, naming the key, for what `Settings` does not take."""
    return read_settings(Settings, section)
