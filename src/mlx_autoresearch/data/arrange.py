"""Puts tokenized documents in their final order, and the held-out ones in their parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlx_autoresearch.errors import UserError

from .duplicates import Windows, resembling
from .parts import DROPPED, HELD_OUT, divide
from .prepared import LEFT_OUT, ORDER
from .shards import ShardWriter, TokenShards
from .tokenizer import Tokenizer

SHUFFLE_SEED = 0


class Arranged(NamedTuple):
    """The parts by name, and how many held-out documents are in none: as training has them, or one like them."""

    parts: dict[str, TokenShards]
    duplicates: int
    resembling: int


def arrange(
    train: TokenShards, held_out: TokenShards, folder: Path, tokenizer: Tokenizer, *, shuffle: bool
) -> Arranged:
    """Write every part to `folder`, and the order of the held-out documents, as `prepared.ORDER` is read.

    train and held_out: in the source's order. Raises UserError when no document is left to validate on.
    """
    digests = list(_digests(held_out))
    shared = set(digests).intersection(_digests(train))
    duplicate = np.array([digest in shared for digest in digests])
    alike = resembling(held_out, train, Windows(tokenizer, train.info.bytes_per_token)) & ~duplicate
    dropped = duplicate | alike
    if dropped.all():
        raise UserError(
            f"each of the {len(digests):,} validation documents is in the training text too, or resembles one there: "
            "give the source other text or a larger val_fraction"
        )
    order = _order(held_out, shuffle=shuffle)
    part = np.full(len(order), DROPPED, np.uint8)
    kept = ~dropped[order]
    part[kept] = divide(np.diff(held_out.offsets)[order[kept]])
    np.save(folder / ORDER, part)
    parts = {"train": _rearranged(train, _order(train, shuffle=shuffle), folder, "train", tokenizer)}
    for i, name in enumerate((*HELD_OUT, LEFT_OUT)):
        if (part == i).any():
            parts[name] = _rearranged(held_out, order[part == i], folder, name, tokenizer)
    for name in HELD_OUT:  # of what was written; train holds the same documents as before
        if name in parts and not shared.isdisjoint(_digests(parts[name])):
            raise RuntimeError(f"a document of {name} is in the training split")
    return Arranged(parts, int(duplicate.sum()), int(alike.sum()))


def _digests(shards: TokenShards) -> Iterator[bytes]:
    """A hash of each document's tokens, which are equal exactly where the texts are."""
    tokens = np.asarray(shards.tokens)  # slices of a memmap are slow to make
    start = 0
    for end in shards.offsets[1:].tolist():
        yield hashlib.blake2b(tokens[start:end].data, digest_size=16).digest()
        start = end


def _order(shards: TokenShards, *, shuffle: bool) -> np.ndarray:
    """Indices of the documents as they will stand."""
    order = np.arange(shards.info.documents)
    # RandomState's numbers never change between versions; Generator's may.
    return np.random.RandomState(SHUFFLE_SEED).permutation(order) if shuffle else order


def _rearranged(raw: TokenShards, order: np.ndarray, folder: Path, name: str, tokenizer: Tokenizer) -> TokenShards:
    """Writes the documents whose indices are in `order`, in that order, under another name."""
    tokens = np.asarray(raw.tokens)
    with ShardWriter(folder, name, tokenizer.token_bytes) as writer:
        for chunk in np.array_split(order, len(order) // 4096 + 1):
            bounds = zip(raw.offsets[chunk].tolist(), raw.offsets[chunk + 1].tolist(), strict=True)
            writer.append([tokens[start:end] for start, end in bounds])
        return writer.close()
