"""Where text comes from. A new source is one class with `files` and `read`, added to the union below."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import Corpus, Source, Split
from .gutenberg import Gutenberg
from .hub import Hub
from .stdlib import Stdlib
from .text import Text

SourceConfig = Annotated[Stdlib | Text | Hub | Gutenberg, Field(discriminator="kind")]

__all__ = ["Corpus", "Gutenberg", "Hub", "Source", "SourceConfig", "Split", "Stdlib", "Text"]
