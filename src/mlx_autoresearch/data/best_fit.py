"""What packing works on: documents whose offsets were checked, and a buffer that finds the piece with the best fit."""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np

from mlx_autoresearch.errors import UserError

# A piece is one integer: the high bits are its length, the low bits its start, inverted. Of equal lengths, the one that
# sorts last starts first.
_START_BITS = 48
_LAST_START = (1 << _START_BITS) - 1


def checked_offsets(tokens: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """`offsets` as (documents + 1,) int64, which must increase from 0 to N, for tokens (N,).

    Raises `UserError` where they do not, or where there is no document.
    """
    offsets = np.asarray(offsets, np.int64)
    if len(offsets) < 2:
        raise UserError("no documents to pack: run `mlx-autoresearch prepare` on a source that has text")
    if offsets[0] != 0 or offsets[-1] != len(tokens) or np.diff(offsets).min() < 1:
        raise UserError(
            f"document offsets must increase from 0 to {len(tokens)}: the token shards are damaged, "
            "delete their folder and run `mlx-autoresearch prepare` again"
        )
    return offsets


class BestFitBuffer:
    """Pieces, each a start and a length in tokens, sorted by length; of equal lengths the first start goes first.

    A start is below 2^48; a length has no limit.
    """

    def __init__(self) -> None:
        self._keys: list[int] = []  # a list inside, not a subclass of list, in which bisection is four times slower

    def __len__(self) -> int:
        return len(self._keys)

    def extend(self, starts: np.ndarray, lengths: np.ndarray) -> None:
        """Adds pieces, (n,) int64 each."""
        # Python integers: a piece of 2^15 tokens would overflow int64 here.
        inverted = (_LAST_START - starts).tolist()
        self._keys += [n << _START_BITS | start for start, n in zip(inverted, lengths.tolist(), strict=True)]
        self._keys.sort()  # nearly sorted already: a merge of two runs

    def add(self, start: int, length: int) -> None:
        """Adds a piece."""
        insort(self._keys, length << _START_BITS | (_LAST_START - start))

    def take_fitting(self, room: int) -> tuple[int, int] | None:
        """Removes the longest piece of at most `room` tokens: its start and length, or None where all are longer."""
        i = bisect_left(self._keys, (room + 1) << _START_BITS)
        if not i:
            return None
        key = self._keys.pop(i - 1)  # written out: this is called for every piece
        return _LAST_START - (key & _LAST_START), key >> _START_BITS

    def take_shortest(self) -> tuple[int, int]:
        """Removes the shortest piece: its start and length. Raises `IndexError` when the buffer is empty."""
        longer = ((self._keys[0] >> _START_BITS) + 1) << _START_BITS
        return _start_and_length(self._keys.pop(bisect_left(self._keys, longer) - 1))

    def take_longest(self) -> tuple[int, int]:
        """Removes the longest piece: its start and length. Raises `IndexError` when the buffer is empty."""
        return _start_and_length(self._keys.pop())


def _start_and_length(key: int) -> tuple[int, int]:
    return _LAST_START - (key & _LAST_START), key >> _START_BITS
