"""Text of one's own: files, folders and globs."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from mlx_autoresearch.errors import UserError

from .base import Source
from .readers import SUFFIXES, read_file, walk


class Text(Source, frozen=True):
    """Files of .txt, .md, .py (cut into documents), .jsonl and .parquet (a record is a document)."""

    kind: Literal["text"] = "text"
    paths: list[str] = Field(min_length=1, description="files, folders (searched to the bottom) and globs")
    column: str = Field(default="text", min_length=1, description="field of .jsonl records, column of .parquet files")
    doc_bytes: int | None = Field(default=1200, ge=64, description="bytes of a document, about; null keeps files whole")

    location: ClassVar[frozenset[str]] = frozenset({"paths"})

    def files(self, downloads: Path) -> list[tuple[str, Path]]:
        files: dict[str, Path] = {}
        seen: set[Path] = set()
        for entry in self.paths:
            for name, path in _expand(entry):
                if (actual := path.resolve()) in seen:  # named twice, it could end up on both sides of the split
                    continue
                seen.add(actual)
                while name in files:  # the same name under another entry
                    name += "'"
                files[name] = path
        return list(files.items())

    def read(self, path: Path) -> Iterator[str]:
        return read_file(path, self.column, self.doc_bytes)


def _expand(entry: str) -> Iterator[tuple[str, Path]]:
    """(name below what the entry points at, file), so that moving a corpus does not change its split."""
    supported = " ".join(SUFFIXES)
    try:
        path = Path(entry).expanduser()
    except RuntimeError:
        raise UserError(f"{entry}: no such user, or one without a home directory") from None
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise UserError(f"{entry}: cannot read {path.suffix or 'files without suffix'}; supported are {supported}")
        yield path.name, path
        return
    if not path.exists() and not glob.has_magic(entry):
        raise UserError(f"{entry}: no such file or folder (looked in {Path.cwd()})")
    root, matches = path, [path]
    if not path.exists():
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        root = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
    found = False
    for match in matches:
        for file in walk(match, SUFFIXES) if match.is_dir() else [match]:
            if file.suffix.lower() in SUFFIXES:
                found = True
                yield file.relative_to(root).as_posix(), file
    if not found:
        raise UserError(f"{entry}: matches no file that can be read; supported are {supported}")
