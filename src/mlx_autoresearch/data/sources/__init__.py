"""Where text comes from. A new source is one class with `files` and `read`, added to the union below."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mlx_autoresearch.data.sources.base import Source, Split
from mlx_autoresearch.data.sources.gutenberg import Gutenberg
from mlx_autoresearch.data.sources.hub import Hub
from mlx_autoresearch.data.sources.stdlib import Stdlib
from mlx_autoresearch.data.sources.text import Text

SourceConfig = Annotated[Stdlib | Text | Hub | Gutenberg, Field(discriminator="kind")]

__all__ = ["Gutenberg", "Hub", "Source", "SourceConfig", "Split", "Stdlib", "Text"]
