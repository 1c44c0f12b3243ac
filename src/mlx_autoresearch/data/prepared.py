"""Opens prepared data, which is found without reading the text it was made from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlx_autoresearch.errors import UserError

from .parts import HELD_OUT, Part
from .shards import MANIFEST, Manifest, TokenShards, verify_files
from .tokenizer import MAX_DOCUMENT_CHARS, MAX_TRAINING_CHARS, SPECIAL_TOKENS, SPLIT_PATTERN, Tokenizer

if TYPE_CHECKING:
    from .sources.base import Corpus, Source

FORMAT = 2  # raise it whenever the same text would give other files
TOKENIZER = "tokenizer.json"
ORDER = "held_out.npy"  # for each held-out document in its order, its part: an index into (*HELD_OUT, LEFT_OUT)
LEFT_OUT = "left_out"  # held-out documents that are in no part
TOKENIZER_SETTINGS = {
    "pattern": SPLIT_PATTERN,
    "special_tokens": list(SPECIAL_TOKENS),
    "max_training_chars": MAX_TRAINING_CHARS,
    "max_document_chars": MAX_DOCUMENT_CHARS,
}


@dataclass(frozen=True)
class PreparedData:
    """A folder of prepared data: tokenizer, the tokens of each part, and the manifest with their hashes."""

    path: Path
    manifest: Manifest

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Read from disk at first use."""
        return Tokenizer.load(self.path / TOKENIZER)

    def split(self, name: Part) -> TokenShards:
        """The memory-mapped tokens of one part. Raises `UserError` when the held-out text was too little for it."""
        if name not in self.manifest.splits:
            raise UserError(
                f"the held-out text is too little for a part called {name}: give the source more text or a larger "
                "val_fraction, and run `mlx-autoresearch prepare`"
            )
        return TokenShards(self.path, name, self.manifest.splits[name])

    def held_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (N,) uint16 and offsets (documents + 1,) int64 of all held-out documents, in their order.

        What is in no part is among them: the reference validates on all of it.
        """
        part = np.load(self.path / ORDER)
        lengths = np.empty(len(part), np.int64)
        shards = {
            i: TokenShards(self.path, name, self.manifest.splits[name])
            for i, name in enumerate((*HELD_OUT, LEFT_OUT))
            if name in self.manifest.splits
        }
        for i, there in shards.items():
            lengths[part == i] = np.diff(there.offsets)
        tokens = np.empty(lengths.sum(), np.uint16)
        of_part = np.repeat(part, lengths)
        for i, there in shards.items():
            tokens[of_part == i] = there.tokens
        return tokens, np.concatenate([np.zeros(1, np.int64), lengths.cumsum()])

    def verify(self) -> None:
        """Reads every file and compares its SHA-256; raises `UserError` naming the damaged one."""
        verify_files(self.path, self.manifest.all_files)

    def verify_training(self) -> None:
        """As `verify`, for the files of the part to train on alone."""
        verify_files(self.path, self.manifest.splits["train"].files)

    def training_files(self) -> list[Path]:
        """All that a training reads: the manifest, the tokenizer and the tokens to train on."""
        return [self.path / name for name in (MANIFEST, TOKENIZER, *self.manifest.splits["train"].files)]


def open_prepared(source: Source, *, vocab_size: int, cache_dir: str | Path) -> PreparedData:
    """What `prepare` made of the text as it is now, found without reading the text.

    Raises `UserError` when it has not been prepared, or when a file is missing or has the wrong size.
    """
    cache = Path(cache_dir).expanduser()
    return find_prepared(source.open(downloads_folder(cache)), vocab_size, cache)


def find_prepared(corpus: Corpus, vocab_size: int, cache: Path) -> PreparedData:
    """As `open_prepared`, for a corpus that is open already."""
    folder = prepared_folder(cache, corpus.fingerprint, vocab_size)
    if not folder.is_dir():
        raise UserError(
            f"source {corpus.source.kind} is not prepared with vocab_size {vocab_size:,} in {cache}, or its text has "
            "changed: run `mlx-autoresearch prepare`"
        )
    return PreparedData(folder, Manifest.load(folder))


def downloads_folder(cache: Path) -> Path:
    """Where sources keep what they fetch."""
    return cache / "downloads"


def prepared_folder(cache: Path, fingerprint: str, vocab_size: int) -> Path:
    """The folder's name is a hash of all that decides its content; the fingerprint covers the source's settings."""
    made_from = [FORMAT, fingerprint, vocab_size, TOKENIZER_SETTINGS]
    return cache / "prepared" / hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16]
