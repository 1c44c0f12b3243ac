"""The rows that val_bpb is measured on: which documents are scored, and how they are packed.

The documents are chosen from the validation text alone: all of them, or a sample spread evenly over it. Every token of
theirs but BOS is then scored exactly once. Documents stay whole where they fit; one is split only to fill a row.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_ENOUGH = 0.9  # share of the tokens asked for at which a document that does not fit ends the sample


class Row(NamedTuple):
    """tokens: (T + 1,) int32, the inputs and the target after the last. scored: (T,) bool, which targets count.

    document: (T,) int64, the document of each target that counts.
    """

    tokens: np.ndarray
    scored: np.ndarray
    document: np.ndarray


def scorable(offsets: np.ndarray) -> np.ndarray:
    """(documents,) int64: how many tokens each document has besides its BOS."""
    return np.diff(np.asarray(offsets, np.int64)) - 1


def sample(offsets: np.ndarray, eval_tokens: int) -> np.ndarray:
    """Indices, increasing, of the documents that are scored: whole ones, with at most `eval_tokens` tokens in all.

    offsets: (documents + 1,). All documents are taken where so many tokens hold them. Otherwise they are taken in the
    order of their bit-reversed indices (van der Corput's sequence), which spreads them evenly over the split however
    many are taken. A document too long for what is left is passed over, or ends the sample if nine tenths are there.
    If every document is longer than `eval_tokens`, the shortest one is scored.
    """
    tokens = scorable(offsets)
    if tokens.sum() <= eval_tokens:
        return np.flatnonzero(tokens > 0)
    chosen: list[int] = []
    left = eval_tokens
    for i in _bit_reversed(len(tokens)).tolist():
        n = int(tokens[i])
        if 0 < n <= left:
            chosen.append(i)
            left -= n
        elif n > left and left <= (1 - _ENOUGH) * eval_tokens:
            break
    return np.array(sorted(chosen) or [int(np.where(tokens > 0, tokens, tokens.max()).argmin())])


def pack(tokens: np.ndarray, offsets: np.ndarray, documents: np.ndarray, *, sequence_len: int) -> Iterator[Row]:
    """Rows in which every token but BOS of `documents` is a scored target exactly once.

    tokens (N,) and offsets (documents + 1,): the split, each document with BOS first. documents: indices into it.
    A row takes the longest document that fits into its room. When none fits, the shortest one is split to fill the row,
    and its rest begins the next row behind a BOS of its own. The last row is filled up with tokens that are not scored.
    """
    tokens, offsets = np.asarray(tokens), np.asarray(offsets)
    row_len = sequence_len + 1
    waiting = _ByLength()
    for i in np.asarray(documents).tolist():
        waiting.add(i, int(offsets[i]), int(offsets[i + 1]))
    rest: _Piece | None = None
    while waiting or rest is not None:
        row = np.empty(row_len, np.int32)
        scored = np.ones(row_len, bool)
        document = np.zeros(row_len, np.int64)
        used = 0
        while used < row_len:
            room = row_len - used
            if rest is not None:
                piece, rest = rest, None
            elif waiting and room > 1:  # one place would hold a BOS, which nothing follows
                piece = waiting.take(room)
            else:
                row[used:] = row[0]
                scored[used:] = False
                break
            taken = min(piece.end - piece.start, room - 1)
            row[used] = tokens[piece.bos]
            scored[used] = False
            document[used : used + 1 + taken] = piece.document
            row[used + 1 : used + 1 + taken] = tokens[piece.start : piece.start + taken]
            if piece.start + taken < piece.end:
                rest = piece._replace(start=piece.start + taken)
            used += 1 + taken
        yield Row(row, scored[1:], document[1:])


class _Piece(NamedTuple):
    """A document: where its BOS is, and where what is left of its other tokens begins and ends."""

    document: int
    bos: int
    start: int
    end: int


class _ByLength:
    """Documents by their length; of equally long ones, the first that was added is taken first."""

    def __init__(self) -> None:
        self._starts: dict[int, deque[tuple[int, int]]] = {}
        self._lengths: list[int] = []  # those there are, increasing: far fewer than documents

    def __bool__(self) -> bool:
        return bool(self._lengths)

    def add(self, document: int, start: int, end: int) -> None:
        length = end - start
        if length not in self._starts:
            self._starts[length] = deque()
            insort(self._lengths, length)
        self._starts[length].append((document, start))

    def take(self, room: int) -> _Piece:
        """The longest document of at most `room` tokens, or else the shortest."""
        length = self._lengths[max(bisect_right(self._lengths, room) - 1, 0)]
        document, start = self._starts[length].popleft()
        if not self._starts[length]:
            del self._starts[length]
            del self._lengths[bisect_left(self._lengths, length)]
        return _Piece(document, start, start + 1, start + length)


def _bit_reversed(n: int) -> np.ndarray:
    """0 ... n-1 in the order of their bits reversed: 0, 4, 2, 6, 1, 5, 3, 7 for eight."""
    bits = max(n - 1, 1).bit_length()
    order = np.zeros(1 << bits, np.int64)
    for bit in range(bits):
        order |= ((np.arange(1 << bits) >> bit) & 1) << (bits - 1 - bit)
    return order[order < n]
