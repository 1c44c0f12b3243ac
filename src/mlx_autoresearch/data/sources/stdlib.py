"""The corpus that every machine already has: the source text of Python's standard library."""

from __future__ import annotations

import io
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from mlx_autoresearch.errors import UserError

from .base import Source
from .cut import cut
from .readers import walk

SKIPPED = ("site-packages", "dist-packages", "__pycache__")


class Stdlib(Source, frozen=True):
    """About 30 MB of Python, half of it the library's own tests, which some distributions leave out."""

    kind: Literal["stdlib"] = "stdlib"
    doc_bytes: int = Field(default=1200, ge=64, description="bytes of a document, about")

    def files(self, downloads: Path) -> list[tuple[str, Path]]:
        root = Path(sysconfig.get_path("stdlib"))
        named = ((path.relative_to(root).as_posix(), path) for path in walk(root, (".py",), skip=SKIPPED))
        # The build writes its own paths and flags into these: no text of the library, and other on every machine.
        files = [(name, path) for name, path in named if not name.startswith(("_sysconfigdata", "config-"))]
        if not files:
            raise UserError(
                f"this Python keeps no standard library text in {root}; use `kind: text` with files of your own"
            )
        return files

    def read(self, path: Path) -> Iterator[str]:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a few tests are in other encodings on purpose
            return
        yield from cut(io.StringIO(text), self.doc_bytes)
