"""Sources of text; and the corpus a source opens: its files, listed once and split into training and validation."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, Field

from mlx_autoresearch.errors import UserError

if TYPE_CHECKING:
    from rich.progress import Progress

Split = Literal["train", "val"]


class TextFile(NamedTuple):
    """A file of text as it was when the corpus was opened; size -1 and time 0 where it has not been fetched.

    name: unique in its corpus, the same on every machine; size in bytes; time of the last change in nanoseconds.
    """

    name: str
    path: Path
    size: int
    time: int


class Part(NamedTuple):
    """Documents of one file: from number `first` up to `last`, which is left out; by default all."""

    path: Path
    first: int = 0
    last: int | None = None


class Source(BaseModel, frozen=True, extra="forbid"):
    """Text as documents in two splits; a subclass says which files hold it and how a file is read."""

    kind: str
    val_fraction: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="share of files (documents, where there is one file) held out for validation",
    )

    location: ClassVar[frozenset[str]] = frozenset()  # fields that say where the files are, not what the text is
    # Raised whenever the same files would give other documents, so that prepared data is made anew.
    reading: ClassVar[int] = 1

    @property
    def shuffled(self) -> bool:
        """True when documents already come in random order."""
        return False

    def fetch(self, downloads: Path, progress: Progress | None = None) -> None:
        """Download what is missing into `downloads`; raises UserError when that fails."""

    def files(self, downloads: Path) -> list[tuple[str, Path]]:
        """(name, file) of all the text, in a fixed order; names are unique and the same on every machine."""
        raise NotImplementedError

    def read(self, path: Path) -> Iterator[str]:
        """The documents of one file."""
        raise NotImplementedError

    def open(self, downloads: Path) -> Corpus:
        """The text as it is now; lists the files, reads none. Raises UserError when it cannot find or list them."""
        return Corpus(self, [TextFile(name, path, *_stat(path)) for name, path in self.files(downloads)])

    def named(self, files: Sequence[TextFile]) -> set[str]:
        """The names of the files that are for validation because somebody said so; empty where nobody did."""
        return set()

    @property
    def share_wanted(self) -> float | None:
        """The share of the text that is meant to be held out; None where it follows from something else."""
        return self.val_fraction

    def parts(self, files: Sequence[TextFile]) -> dict[Split, list[Part]]:
        """The documents of each split: whole files are held out, or the tail of a single one."""
        if len(files) == 1:
            return self._tail(files[0].path)
        held = self.named(files) or self._hashed(files)
        return {
            "train": [Part(file.path) for file in files if file.name not in held],
            "val": [Part(file.path) for file in files if file.name in held],
        }

    def _hashed(self, files: Sequence[TextFile]) -> set[str]:
        """As `held_out`; but where that leaves a side without text, the next file that holds some changes sides."""
        held = held_out((file.name for file in files), self.val_fraction)
        order = sorted(files, key=lambda file: place(file.name))

        def with_text(side: Iterable[TextFile]) -> TextFile | None:
            return next((file for file in side if next(self.texts(file.path), None) is not None), None)

        train = [file for file in order if file.name not in held]
        if with_text(file for file in order if file.name in held) is None and (found := with_text(train)):
            held.add(found.name)
            train.remove(found)
        if with_text(train) is None:
            holding = [file for file in order if file.name in held and with_text([file])]
            held -= {file.name for file in holding[1:]}
        return held

    def _tail(self, path: Path) -> dict[Split, list[Part]]:
        """A contiguous tail is held out: neighbours in one file are too alike to be on both sides."""
        count = sum(1 for _ in self.texts(path))
        if count < 2:
            raise UserError(
                f"{path} holds {count} document(s), and validation needs one of its own; add text or cut it (doc_bytes)"
            )
        train = min(max(round(count * (1 - self.val_fraction)), 1), count - 1)
        return {"train": [Part(path, 0, train)], "val": [Part(path, train, count)]}

    def texts(self, path: Path) -> Iterator[str]:
        """The documents of one file that hold more than white space; raises UserError when the file is missing."""
        if not path.is_file():
            raise UserError(f"{path} is not there; run `mlx-autoresearch prepare` to fetch it")
        return (document for document in self.read(path) if document and not document.isspace())


class Corpus:
    """The text of a source as it was when opened: its files, listed once, and what follows from that list."""

    def __init__(self, source: Source, files: Sequence[TextFile]) -> None:
        self.source = source
        self.files = files

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the text: a hash of the source's settings, its files' names, sizes and times, and `named`."""
        settings = self.source.model_dump(mode="json", exclude=set(self.source.location))
        state = [self.source.reading, settings, [[file.name, file.size, file.time] for file in self.files]]
        if named := sorted(self.source.named(self.files)):
            state.append(named)
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()

    def documents(self, split: Split) -> Iterator[str]:
        """The documents of one split, always in the same order; reads the files anew with every call.

        Raises UserError when there are none, or a file is missing or cannot be read.
        """
        document = None
        for path, first, last in self.parts[split]:
            for document in islice(self.source.texts(path), first, last):
                yield document
        if document is None:
            raise UserError(f"source {self.source.kind}: no text in the {split} split; give it more text")

    @cached_property
    def parts(self) -> dict[Split, list[Part]]:
        """Which documents of which files are in each split; where there is one file, it is read to count them."""
        return self.source.parts(self.files)


def held_out(names: Iterable[str], fraction: float) -> set[str]:
    """The names held out for validation: those whose hash falls into the lowest `fraction`, at least one and not all.

    A file's split depends on its name only, so adding files never moves one. Exception: if the hash leaves a split
    empty, it gets one file. Raises UserError for fewer than two names.
    """
    order = sorted(set(names), key=place)
    if len(order) < 2:
        raise UserError(f"{len(order)} file(s) of text found; a training and a validation split need two")
    count = sum(place(name) < fraction for name in order)
    return set(order[: min(max(count, 1), len(order) - 1)])


def place(name: str) -> float:
    """A number from 0 up to 1 that follows from a file's name alone, and looks random."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") / 2**64


def _stat(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:  # not fetched yet
        return -1, 0
    return stat.st_size, stat.st_mtime_ns
