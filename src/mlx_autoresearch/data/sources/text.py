"""Text of one's own: files, folders and globs; which of them are for validation may be said, or be in their names."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

from pydantic import Field

from mlx_autoresearch.errors import UserError

from .base import Source, TextFile
from .readers import SUFFIXES, read_file, walk

# A whole part of a name, perhaps numbered: train.jsonl, val/0001.txt, test-00000-of-00004.parquet.
_NUMBERED = r"(?:[-_.]?\d.*)?"
_TRAIN = re.compile(rf"(?:train|training){_NUMBERED}", re.IGNORECASE)
_VALIDATION = re.compile(rf"(?:val|valid|validation|dev|test){_NUMBERED}", re.IGNORECASE)


class Text(Source, frozen=True):
    """Files of .txt, .md, .py (cut into documents), .jsonl and .parquet (a record is a document)."""

    kind: Literal["text"] = "text"
    paths: list[str] = Field(min_length=1, description="files, folders (searched to the bottom) and globs")
    column: str = Field(default="text", min_length=1, description="field of .jsonl records, column of .parquet files")
    val_paths: list[str] = Field(
        default=[], description="files, folders and globs that are for validation; by default names or hashes decide"
    )
    doc_bytes: int | None = Field(default=1200, ge=64, description="bytes of a document, about; null keeps files whole")

    location: ClassVar[frozenset[str]] = frozenset({"paths", "val_paths"})

    def files(self, downloads: Path) -> list[tuple[str, Path]]:
        files: dict[str, Path] = {}
        seen: set[Path] = set()
        for entry in [*self.paths, *self.val_paths]:
            for name, path in _expand(entry):
                if (actual := path.resolve()) in seen:  # named twice, it could end up on both sides of the split
                    continue
                seen.add(actual)
                while name in files:  # the same name under another entry
                    name += "'"
                files[name] = path
        return list(files.items())

    def named(self, files: Sequence[TextFile]) -> set[str]:
        """Those of val_paths; else those whose names say val, valid, validation, dev or test, if others say train."""
        if self.val_paths:
            said = {path.resolve() for entry in self.val_paths for _, path in _expand(entry)}
            return {file.name for file in files if file.path.resolve() in said}
        kinds = {file.name: _kind(file.name) for file in files}
        if not {"train", "val"} <= set(kinds.values()):
            return set()
        return {name for name, kind in kinds.items() if kind == "val"}

    @property
    def share_wanted(self) -> float | None:
        return None if self.val_paths else self.val_fraction

    def read(self, path: Path) -> Iterator[str]:
        return read_file(path, self.column, self.doc_bytes)


def _kind(name: str) -> str | None:
    """What a name below a corpus's folder says: "train", "val" or nothing; the part nearest to the file counts."""
    path = PurePosixPath(name)
    for part in (path.stem, *reversed(path.parent.parts)):
        if _TRAIN.fullmatch(part):
            return "train"
        if _VALIDATION.fullmatch(part):
            return "val"
    return None


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
