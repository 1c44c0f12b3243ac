"""What a source of text is, and how its files are split into training and validation."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, Field

from mlx_autoresearch.errors import UserError

if TYPE_CHECKING:
    from rich.progress import Progress

Split = Literal["train", "val"]

READING = 1  # raise it whenever the same files would give other documents, so that prepared data is made anew


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

    @property
    def shuffled(self) -> bool:
        """True when documents already come in random order."""
        return False

    def fetch(self, downloads: Path, progress: Progress | None = None) -> None:
        """Bring what must be brought into `downloads`; raises UserError when it cannot be had."""

    def files(self, downloads: Path) -> list[tuple[str, Path]]:
        """(group name, file) of all the text, in a fixed order; names are unique and the same on every machine."""
        raise NotImplementedError

    def read(self, path: Path) -> Iterator[str]:
        """The documents of one file."""
        raise NotImplementedError

    def fingerprint(self, downloads: Path) -> str:
        """Identity of the text as it is now, from settings, names, sizes (bytes) and times (ns) of its files."""
        settings = self.model_dump(mode="json", exclude=set(self.location))
        state = [READING, settings, [[name, *_stat(path)] for name, path in self.files(downloads)]]
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()

    def documents(self, split: Split, downloads: Path) -> Iterator[str]:
        """The documents of one split, always in the same order; raises UserError when there are none."""
        document = None
        for document in self.select(split, downloads):
            yield document
        if document is None:
            raise UserError(f"source {self.kind}: no text in the {split} split; give it more text")

    def select(self, split: Split, downloads: Path) -> Iterator[str]:
        """The documents of one split, perhaps none: whole files are held out, or the tail of a single one."""
        files = self.files(downloads)
        if len(files) == 1:
            yield from self.split_one(files[0][1], split)
            return
        held = held_out((name for name, _ in files), self.val_fraction)
        for name, path in files:
            if (name in held) == (split == "val"):
                yield from self.texts(path)

    def split_one(self, path: Path, split: Split) -> Iterator[str]:
        """A contiguous tail is held out: neighbours in one file are too alike to be on both sides."""
        count = sum(1 for _ in self.texts(path))
        if count < 2:
            raise UserError(
                f"{path} holds {count} document(s), and validation needs one of its own; add text or cut it (doc_bytes)"
            )
        train = min(max(round(count * (1 - self.val_fraction)), 1), count - 1)
        yield from islice(self.texts(path), *((0, train) if split == "train" else (train, count)))

    def texts(self, path: Path) -> Iterator[str]:
        """The documents of one file that hold more than white space; raises UserError when the file is not here."""
        if not path.is_file():
            raise UserError(f"{path} is not there; run `mlx-autoresearch prepare` to fetch it")
        return (document for document in self.read(path) if document and not document.isspace())


def held_out(names: Iterable[str], fraction: float) -> set[str]:
    """The names held out for validation: those whose hash falls into the lowest `fraction`, at least one and not all.

    A name decides alone, so adding files moves none between the splits, except the one that was lent to a side which
    the hash had left empty. Raises UserError for fewer than two names.
    """
    place = {name: int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") / 2**64 for name in names}
    if len(place) < 2:
        raise UserError(f"{len(place)} file(s) of text found; a training and a validation split need two")
    order = sorted(place, key=place.__getitem__)
    count = sum(place[name] < fraction for name in order)
    return set(order[: min(max(count, 1), len(order) - 1)])


def _stat(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:  # not fetched yet
        return -1, 0
    return stat.st_size, stat.st_mtime_ns
