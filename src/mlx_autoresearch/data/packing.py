"""Best-fit packing: documents in, rows of T+1 tokens out, with no padding.

A row is filled by the longest buffered document that fits entirely; when none fits, by the shortest
one, cropped to the room that is left. The rows are exactly the reference's (karpathy/autoresearch,
`make_dataloader`), found by bisection in a sorted buffer instead of a scan over it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mlx_autoresearch.errors import UserError

# A buffered document is one integer: the high bits are its length, the low bits its inverted arrival number (how many
# documents were read before it, over all epochs). Of equal lengths, the one that sorts last arrived first.
_ARRIVAL_BITS = 40
_ARRIVAL_MASK = (1 << _ARRIVAL_BITS) - 1


class Batch(NamedTuple):
    """Inputs and targets, both (B, T) int32, and the epoch (from 1) of the last document read."""

    inputs: np.ndarray
    targets: np.ndarray
    epoch: int


class PackedBatches(Iterator[Batch]):
    """Packs documents into an endless stream of `Batch`es of B rows.

    Args:
        tokens: (N,) unsigned integers, all documents end to end, each starting with BOS.
        offsets: (documents + 1,) int64, strictly increasing from 0 to N; document i is
            `tokens[offsets[i]:offsets[i+1]]`.
        batch_size: B, rows in a batch.
        sequence_len: T; a row holds T+1 tokens, of which the first T are inputs and the last T targets.
        buffer_size: how many documents, at least, best-fit chooses from.
        refill_batch: documents read at a time while fewer than `buffer_size` are buffered; the last
            batch of an epoch may be shorter, because a batch never straddles two epochs.

    Attributes `tokens_placed` and `tokens_cropped` count document tokens that reached a row and that cropping
    threw away; `rows` counts the rows made.

    Raises `ValueError` for a size below 1 and `UserError` for offsets that do not describe documents.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        offsets: np.ndarray,
        *,
        batch_size: int,
        sequence_len: int,
        buffer_size: int = 1000,
        refill_batch: int = 128,
    ) -> None:
        sizes = {
            "batch_size": batch_size,
            "sequence_len": sequence_len,
            "buffer_size": buffer_size,
            "refill_batch": refill_batch,
        }
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"[PackedBatches] {name} must be at least 1, got {size}")
        # asarray: slicing a memmap builds a memmap, which costs more than the copy it is for.
        self._tokens = np.asarray(tokens)
        self._offsets = np.asarray(offsets)
        self._lengths = np.diff(self._offsets)
        self.documents = len(self._lengths)
        if self.documents < 1:
            raise UserError("no documents to pack: run `mlx-autoresearch prepare` on a source that has text")
        if self._offsets[0] != 0 or self._offsets[-1] != len(self._tokens) or self._lengths.min() < 1:
            raise UserError(
                f"document offsets must increase from 0 to {len(self._tokens)}: the token shards are damaged, "
                "delete their folder and run `mlx-autoresearch prepare` again"
            )
        self._batch_size = batch_size
        self._row_len = sequence_len + 1
        self._buffer_size = buffer_size
        self._refill_batch = refill_batch
        self._buffer: list[int] = []
        self._arrivals = 0
        self.rows = 0
        self.tokens_placed = 0
        self.tokens_cropped = 0

    @property
    def epoch(self) -> int:
        """The epoch, from 1, of the last document read."""
        return max(self._arrivals - 1, 0) // self.documents + 1

    @property
    def efficiency(self) -> float:
        """Share of the tokens taken so far that reached a row (1.0: nothing was cropped away)."""
        taken = self.tokens_placed + self.tokens_cropped
        return self.tokens_placed / taken if taken else 1.0

    def __next__(self) -> Batch:
        pieces: list[np.ndarray] = []
        for _ in range(self._batch_size):
            self._fill_row(pieces)
        # Rows are exactly full, so the batch is its pieces end to end.
        rows = np.concatenate(pieces, dtype=np.int32, casting="unsafe").reshape(self._batch_size, self._row_len)
        self.rows += self._batch_size
        self.tokens_placed += rows.size
        return Batch(np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:]), self.epoch)

    def _fill_row(self, pieces: list[np.ndarray]) -> None:
        buffer = self._buffer
        room = self._row_len
        while room:
            while len(buffer) < self._buffer_size:
                self._refill()
            i = bisect_left(buffer, (room + 1) << _ARRIVAL_BITS)
            if i == 0:  # none fits: the first that arrived among the shortest
                i = bisect_left(buffer, ((buffer[0] >> _ARRIVAL_BITS) + 1) << _ARRIVAL_BITS)
            key = buffer.pop(i - 1)
            length = key >> _ARRIVAL_BITS
            if length > room:
                self.tokens_cropped += length - room
                length = room
            start = int(self._offsets[(_ARRIVAL_MASK - (key & _ARRIVAL_MASK)) % self.documents])
            pieces.append(self._tokens[start : start + length])
            room -= length

    def _refill(self) -> None:
        first = self._arrivals % self.documents
        # Python integers: a document of 2^23 tokens would overflow int64 here.
        lengths = self._lengths[first : first + self._refill_batch].tolist()
        for arrival, length in enumerate(lengths, self._arrivals):
            self._buffer.append(length << _ARRIVAL_BITS | (_ARRIVAL_MASK - arrival))
        self._buffer.sort()  # nearly sorted already: a merge of two runs
        self._arrivals += len(lengths)

    def untouched(self) -> np.ndarray:
        """Indices, increasing, of the documents of which no token has been taken yet."""
        read = self._arrivals // self.documents + (np.arange(self.documents) < self._arrivals % self.documents)
        waiting = [(_ARRIVAL_MASK - (key & _ARRIVAL_MASK)) % self.documents for key in self._buffer]
        return np.flatnonzero(read == np.bincount(waiting, minlength=self.documents))

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on with the exact next row, as plain JSON values.

        `cursor` counts the documents read, over all epochs; `buffer` holds the buffered ones as sorted keys, copied
        as they are because `Prefetcher` asks for the state at every batch.
        """
        return {
            "documents": self.documents,
            "tokens": len(self._tokens),
            "cursor": self._arrivals,
            "epoch": self.epoch,
            "rows": self.rows,
            "tokens_placed": self.tokens_placed,
            "tokens_cropped": self.tokens_cropped,
            "buffer": self._buffer.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state`, made by `state_dict` over the same documents (B and T may differ).

        Raises `UserError` when the state was made over other documents.
        """
        if (state["documents"], state["tokens"]) != (self.documents, len(self._tokens)):
            raise UserError(
                f"the saved position is one in {state['documents']:,} documents of {state['tokens']:,} tokens, but "
                f"the prepared data has {self.documents:,} of {len(self._tokens):,}: "
                "resume with the data that the run started with"
            )
        self._buffer = list(state["buffer"])
        self._arrivals = state["cursor"]
        self.rows = state["rows"]
        self.tokens_placed = state["tokens_placed"]
        self.tokens_cropped = state["tokens_cropped"]
