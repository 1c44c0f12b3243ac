"""Token shards: the tokens of a split's documents, end to end in one memory-mapped file; and a manifest of hashes.

One file per split is enough: the largest corpus in view (ten climbmix shards, about 10^9 tokens) takes 2 GB, and the
operating system loads only the pages that are read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from mlx_autoresearch.errors import UserError

MANIFEST = "manifest.json"


class FileInfo(BaseModel):
    """What a file must be: its size in bytes and its SHA-256."""

    model_config = ConfigDict(frozen=True)
    size: int
    sha256: str


class SplitInfo(BaseModel):
    """A split in figures: documents, tokens (each document's BOS among them), bytes of text."""

    model_config = ConfigDict(frozen=True)
    documents: int
    tokens: int
    bytes: int
    dtype: Literal["uint16"] = "uint16"
    files: dict[str, FileInfo]

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text that a token stands for, on average; BOS stands for none and is not counted."""
        return self.bytes / (self.tokens - self.documents)


class Manifest(BaseModel):
    """What a folder of prepared data holds, what it was made from, and the SHA-256 of its validation tokens."""

    model_config = ConfigDict(frozen=True)
    source: dict[str, Any]
    fingerprint: str
    vocab_size: int
    tokenizer: dict[str, Any]
    splits: dict[str, SplitInfo]
    duplicates_dropped: int
    resembling_dropped: int
    val_sha256: str
    files: dict[str, FileInfo]
    versions: dict[str, str]

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Reads a folder's manifest and checks the size of every file; raises `UserError` naming the bad one."""
        path = folder / MANIFEST
        try:
            manifest = cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise UserError(f"there is no {path}: run `mlx-autoresearch prepare`") from None
        except ValidationError as error:
            raise _damaged(path, f"{error.error_count()} errors, first: {error.errors()[0]['msg']}") from None
        for name, file in manifest.all_files.items():
            size = (folder / name).stat().st_size if (folder / name).is_file() else None
            if size != file.size:
                found = "missing" if size is None else f"{size:,} bytes"
                raise _damaged(folder / name, f"{found}, must be {file.size:,} bytes")
        return manifest

    def save(self, folder: Path) -> None:
        """Writes the folder's manifest."""
        (folder / MANIFEST).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @property
    def all_files(self) -> dict[str, FileInfo]:
        """Every file but the manifest, by name."""
        return self.files | {name: file for split in self.splits.values() for name, file in split.files.items()}


class TokenShards:
    """One split on disk: `tokens` and `offsets`, memory-mapped, and `info`.

    Document i is `tokens[offsets[i]:offsets[i+1]]`, BOS first.
    """

    def __init__(self, folder: Path, split: str, info: SplitInfo) -> None:
        self.folder = folder
        self.split = split
        self.info = info

    @cached_property
    def tokens(self) -> np.ndarray:
        """(tokens,) uint16, read-only."""
        return np.memmap(self.folder / _tokens_name(self.split), dtype=self.info.dtype, mode="r")

    @cached_property
    def offsets(self) -> np.ndarray:
        """(documents + 1,) int64, read-only, increasing from 0 to the number of tokens."""
        return np.load(self.folder / _offsets_name(self.split), mmap_mode="r")

    @property
    def sha256(self) -> str:
        """Recorded hash of the tokens; BOS marks where documents begin, so it covers the offsets, too."""
        return self.info.files[_tokens_name(self.split)].sha256


class ShardWriter:
    """Writes a split document by document, hashing on the way; `close` returns what was written.

    `token_bytes` is the (vocab_size,) table of bytes per token. Token ids must be below 65,536.
    """

    def __init__(self, folder: Path, split: str, token_bytes: np.ndarray) -> None:
        self._folder = folder
        self._split = split
        self._token_bytes = token_bytes
        self._hash = hashlib.sha256()
        self._lengths: list[np.ndarray] = []
        self._bytes = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / _tokens_name(split)).open("wb")

    def append(self, documents: Sequence[np.ndarray]) -> None:
        """Adds documents, each a (tokens,) array of ids."""
        tokens = np.concatenate(documents, dtype=np.uint16, casting="unsafe")
        self._file.write(tokens.data)
        self._hash.update(tokens.data)
        self._lengths.append(np.fromiter(map(len, documents), np.int64, len(documents)))
        self._bytes += int(self._token_bytes[tokens].sum(dtype=np.int64))

    def close(self) -> TokenShards:
        """Finishes both files."""
        self._file.close()
        offsets = np.concatenate([np.zeros(1, np.int64), *self._lengths]).cumsum()
        offsets_path = self._folder / _offsets_name(self._split)
        np.save(offsets_path, offsets)
        tokens = int(offsets[-1])
        info = SplitInfo(
            documents=len(offsets) - 1,
            tokens=tokens,
            bytes=self._bytes,
            files={
                _tokens_name(self._split): FileInfo(size=2 * tokens, sha256=self._hash.hexdigest()),
                offsets_path.name: file_info(offsets_path),
            },
        )
        return TokenShards(self._folder, self._split, info)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


def file_info(path: Path) -> FileInfo:
    """Reads a file for its size and SHA-256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileInfo(size=path.stat().st_size, sha256=digest)


def verify_files(folder: Path, files: dict[str, FileInfo]) -> None:
    """Reads every file and compares its SHA-256; raises `UserError` naming the first damaged one."""
    for name, expected in files.items():
        path = folder / name
        if not path.is_file() or file_info(path) != expected:
            raise _damaged(path, "its SHA-256 is not the manifest's")


def _tokens_name(split: str) -> str:
    return f"{split}.bin"


def _offsets_name(split: str) -> str:
    return f"{split}.offsets.npy"


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path} is damaged ({what}): delete {path.parent} and run `mlx-autoresearch prepare` again")
