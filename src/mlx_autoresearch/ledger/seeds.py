"""The seeds that a search measures at: windows of them, one for each fresh measurement of the best."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError

from mlx_autoresearch.config.explain import explain
from mlx_autoresearch.config.settings import Section
from mlx_autoresearch.config.yaml_text import read_mapping
from mlx_autoresearch.errors import UserError

from .files import SETTINGS


class Seeds(Section):
    """How often a configuration is trained.

    Each fresh measurement of the best takes the next window of `size` seeds. Otherwise the luck that made it the best,
    or the same few seeds, would decide the whole night.
    """

    first: int = Field(default=42, ge=0, lt=2**31)
    baseline: int = Field(default=4, ge=2, le=64, description="trials of the starting point, to learn the noise")
    best: int = Field(default=2, ge=1, le=64, description="fresh trials of a new best")
    most: int = Field(default=4, ge=1, le=64, description="trials of one candidate, at most")

    @classmethod
    def of(cls, home: Path) -> Self | None:
        """The seeds of the search in `home`; None where there is no search, as for a sweep.

        Raises UserError, in one line, when the search's settings cannot be read.
        """
        path = home / SETTINGS
        if not path.is_file():
            return None
        seeds = read_mapping(path, "search's settings", ["seeds"], "restore it").get("seeds", {})
        try:
            return cls.model_validate(seeds)
        except ValidationError as error:
            raise UserError(f"{path}: seeds: {explain(error, cls)[1]}") from None

    @property
    def size(self) -> int:
        """Seeds of one window."""
        return max(self.baseline, self.best, self.most)

    def window(self, number: int) -> list[int]:
        """The seeds of window 0, 1, ..."""
        start = self.first + number * self.size
        return list(range(start, start + self.size))

    def window_of(self, seed: int) -> int:
        """The number of the window that a seed is in."""
        return (seed - self.first) // self.size
