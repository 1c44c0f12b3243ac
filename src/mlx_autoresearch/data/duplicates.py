"""Finds held-out documents that resemble other text: what is trained on, or held-out documents before them.

A document resembles a text if at least half of its windows stand in it: stretches of tokens, about 48 bytes, in which
neither tokens of white space nor upper case count. Of each held-out document 32 windows are looked up, those with the
smallest hashes (a bottom-k sketch, Broder, "On the resemblance and containment of documents", 1997). A document that is
shorter than a window resembles only one with the same words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from .shards import TokenShards
from .tokenizer import Tokenizer

_WINDOW_BYTES = 48
_SKETCH = 32
_ENOUGH = 0.5
_GROUP = 1 << 22  # tokens hashed at a time
_FILTER_BITS = 24
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_INVERSE = pow(_BASE, -1, 1 << 64)


class Windows:
    """Hashes of the windows of documents, for one tokenizer and text of so many bytes a token."""

    def __init__(self, tokenizer: Tokenizer, bytes_per_token: float):
        self.length = max(2, round(_WINDOW_BYTES / bytes_per_token))  # tokens
        self._values = np.array([_value(text) for text in tokenizer.token_strings], np.uint64)
        self._powers = self._inverses = np.ones(0, np.uint64)

    def of(self, shards: TokenShards) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Hashes (n,) uint64 of all windows, and the documents (n,) int64 in which they stand, group by group."""
        offsets = np.asarray(shards.offsets)
        tokens = np.asarray(shards.tokens)
        first = 0
        while first < len(offsets) - 1:
            last = max(int(np.searchsorted(offsets, offsets[first] + _GROUP, "right")) - 1, first + 1)
            document = np.repeat(np.arange(first, last), np.diff(offsets[first : last + 1]))
            for start in range(0, len(document), _GROUP):  # more than one only for a document of that length
                here = slice(start, start + _GROUP)
                yield self._hash(tokens[offsets[first] : offsets[last]][here], document[here])
            first = last

    def _hash(self, tokens: np.ndarray, document: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values = self._values[tokens]
        counts = values > 0
        values, document = values[counts], document[counts]
        self._extend_powers(len(values) + 1)
        sums = np.zeros(len(values) + 1, np.uint64)
        np.cumsum(values * self._powers[: len(values)], out=sums[1:])
        whole = document[self.length - 1 :] == document[: max(len(document) - self.length + 1, 0)]
        start = np.flatnonzero(whole)
        end = start + self.length
        bounds = np.flatnonzero(np.diff(document, prepend=-1, append=-1))
        short = np.diff(bounds) < self.length
        start, end = np.append(start, bounds[:-1][short]), np.append(end, bounds[1:][short])
        return _mixed((sums[end] - sums[start]) * self._inverses[start]), document[start]

    def _extend_powers(self, count: int) -> None:
        if count > len(self._powers):
            self._powers, self._inverses = (
                np.multiply.accumulate(np.append(np.uint64(1), np.full(count - 1, base, np.uint64)))
                for base in (_BASE, _INVERSE)
            )


def resembling(held_out: TokenShards, train: TokenShards, windows: Windows) -> np.ndarray:
    """(documents,) bool: the held-out documents that resemble the training text, or held-out ones before them."""
    hashes, document = _sketches(windows.of(held_out))
    wanted = np.unique(hashes)
    found = np.zeros(len(wanted), bool)
    for there, _ in windows.of(train):
        found[_positions(there, wanted)[0]] = True
    dropped = _resembles(found[np.searchsorted(wanted, hashes)], document, held_out.info.documents)

    first = np.full(len(wanted), held_out.info.documents)  # document in which a window stands, of those that stay
    for there, where in windows.of(held_out):
        positions, kept = _positions(there, wanted)
        np.minimum.at(first, positions, np.where(dropped[where[kept]], len(dropped), where[kept]))
    earlier = first[np.searchsorted(wanted, hashes)] < document
    return dropped | _resembles(earlier, document, len(dropped))


def _sketches(groups: Iterator[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The smallest hashes of each document, and the documents they are of; equal hashes of one count once."""
    hashes, documents = [], []
    for there, where in groups:
        order = np.lexsort((there, where))
        there, where = there[order], where[order]
        new = np.append(True, (np.diff(there) != 0) | (np.diff(where) != 0))[: len(there)]
        there, where = there[new], where[new]
        rank = np.arange(len(where)) - np.searchsorted(where, where)
        hashes.append(there[rank < _SKETCH])
        documents.append(where[rank < _SKETCH])
    return np.concatenate(hashes), np.concatenate(documents)


def _positions(hashes: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where those of `hashes` that are in `wanted` (sorted) stand in it, and their own indices."""
    shift = np.uint64(64 - _FILTER_BITS)
    maybe = np.zeros(1 << _FILTER_BITS, bool)
    maybe[wanted >> shift] = True
    candidates = np.flatnonzero(maybe[hashes >> shift])  # most are none: a search for each would take ten times as long
    positions = np.minimum(np.searchsorted(wanted, hashes[candidates]), len(wanted) - 1)
    hit = wanted[positions] == hashes[candidates]
    return positions[hit], candidates[hit]


def _resembles(found: np.ndarray, document: np.ndarray, documents: int) -> np.ndarray:
    """Which documents have at least half of their windows found; one without any window resembles nothing."""
    total = np.bincount(document, minlength=documents)
    return (total > 0) & (np.bincount(document, found, documents) >= _ENOUGH * total)


def _value(text: bytes) -> int:
    """A hash of a token's text; 0 for one that does not count."""
    text = text.lower().strip()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) | 1 if text else 0


def _mixed(x: np.ndarray) -> np.ndarray:
    """Spread the information over all bits (the end of SplitMix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return x ^ (x >> np.uint64(27))
