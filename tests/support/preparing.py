"""Sources whose text the tests of preparing know, and preparing them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mlx_autoresearch.data.prepare import prepare
from mlx_autoresearch.data.prepared import PreparedData
from mlx_autoresearch.data.sources import Source, Split, Text
from mlx_autoresearch.data.sources.base import Part, TextFile

VOCAB = 270


class Fake(Source, frozen=True):
    """Documents from memory, one "file" a split; `reads` tells what was asked of it."""

    kind: str = "fake"
    train: tuple[str, ...] = tuple(f"training document {i} of the fake source" for i in range(40))
    val: tuple[str, ...] = tuple(f"validation document {i}, held out" for i in range(12))
    in_random_order: bool = False
    reads: ClassVar[list[str]] = []

    @property
    def shuffled(self) -> bool:
        return self.in_random_order

    def fetch(self, downloads: Path, progress: object = None) -> None:
        self.reads.append("fetch")

    def files(self, downloads: Path) -> list[tuple[str, Path]]:
        return [(split, downloads / split) for split in ("train", "val")]

    def parts(self, files: Sequence[TextFile]) -> dict[Split, list[Part]]:
        return {"train": [Part(files[0].path)], "val": [Part(files[1].path)]}

    def texts(self, path: Path) -> Iterator[str]:
        self.reads.append(path.name)
        yield from getattr(self, path.name)


class Counted(Text, frozen=True):
    """Text that counts its listings and how often each file is read, and calls `meanwhile` after each read."""

    calls: ClassVar[Counter[str]] = Counter()
    meanwhile: ClassVar[Callable[[], None]] = lambda: None

    def files(self, downloads: Path) -> list[tuple[str, Path]]:
        self.calls["files"] += 1
        return super().files(downloads)

    def read(self, path: Path) -> Iterator[str]:
        self.calls[path.name] += 1
        yield from super().read(path)
        type(self).meanwhile()


def nothing_is_left(cache: Path) -> bool:
    return [path.name for path in (cache / "prepared").glob("*") if path.name != ".lock"] == []


def make(source: Source, cache: Path, **options: Any) -> PreparedData:
    return prepare(source, vocab_size=VOCAB, cache_dir=cache, quiet=True, **options)
