"""Opens prepared data, which is found without reading the text it was made from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mlx_autoresearch.errors import UserError

from .shards import Manifest, TokenShards, verify_files
from .tokenizer import MAX_DOCUMENT_CHARS, MAX_TRAINING_CHARS, SPECIAL_TOKENS, SPLIT_PATTERN, Tokenizer

if TYPE_CHECKING:
    from .sources.base import Corpus, Source

FORMAT = 1  # raise it whenever the same text would give other files
TOKENIZER = "tokenizer.json"
TOKENIZER_SETTINGS = {
    "pattern": SPLIT_PATTERN,
    "special_tokens": list(SPECIAL_TOKENS),
    "max_training_chars": MAX_TRAINING_CHARS,
    "max_document_chars": MAX_DOCUMENT_CHARS,
}


@dataclass(frozen=True)
class PreparedData:
    """A folder of prepared data: tokenizer, training and validation tokens, and the manifest with their hashes."""

    path: Path
    manifest: Manifest

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Read from disk at first use."""
        return Tokenizer.load(self.path / TOKENIZER)

    def split(self, name: Literal["train", "val"]) -> TokenShards:
        """The memory-mapped tokens of one split."""
        return TokenShards(self.path, name, self.manifest.splits[name])

    def verify(self) -> None:
        """Reads every file and compares its SHA-256; raises `UserError` naming the damaged one."""
        verify_files(self.path, self.manifest.all_files)


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
