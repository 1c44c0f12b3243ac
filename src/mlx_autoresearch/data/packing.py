"""Best-fit packing: documents in, rows of T+1 tokens out, with no padding, and every token once in an epoch.

A row is filled by the longest buffered piece that fits entirely; when none fits, by the first tokens of one, and its
rest waits as a piece of its own: BOS and the tokens that are left. A piece is a document or such a rest.

Until all documents have been read once, the rows are exactly the reference's (`reference_packing.py`): the shortest
document is the one that is cut, and the rests wait, outside the buffer, for the end of the first epoch.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.methods import CURRENT

from .best_fit import BestFitBuffer, checked_offsets

PACKING_VERSION = CURRENT.packing


class Batch(NamedTuple):
    """Inputs and targets, both (B, T) int32, and the epoch (from 1) of the first token of the first row."""

    inputs: np.ndarray
    targets: np.ndarray
    epoch: int


class PackedBatches(Iterator[Batch]):
    """Packs documents into an endless stream of `Batch`es of B rows.

    Every document is placed in rows, all its tokens, before any is placed again; only the last row of an epoch is
    filled up with documents of the next one. The first epoch reads the documents in the order given, every later
    one in another order, drawn from the seed and the epoch. Of a document that was cut, each piece begins with the
    document's first token (BOS).

    Args:
        tokens: (N,) unsigned integers, all documents end to end, each starting with BOS.
        offsets: (documents + 1,) int64, strictly increasing from 0 to N; document i is
            `tokens[offsets[i]:offsets[i+1]]`.
        batch_size: B, rows in a batch.
        sequence_len: T; a row holds T+1 tokens, of which the first T are inputs and the last T targets.
        buffer_size: how many pieces, at least, best fit chooses from, while the epoch has as many left.
        refill_batch: pieces read at a time while fewer than `buffer_size` are buffered; the last batch of an epoch may
            be shorter, because a batch never straddles two epochs.
        seed: of the order of later epochs, from 0 to 2^64 - 1.

    Attributes: `documents`; `rows` and `tokens_placed` count what was made, `cuts` the rows that ended in a cut.

    Raises `ValueError` for a size below 1 or a seed out of range, and `UserError` for offsets that do not describe
    documents.
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
        seed: int = 0,
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
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"[PackedBatches] seed must be from 0 to 2^64 - 1, got {seed}")
        # asarray: slicing a memmap builds a memmap, which costs more than the copy it is for.
        self._tokens = np.asarray(tokens)
        self._offsets = checked_offsets(self._tokens, offsets)
        self.documents = len(self._offsets) - 1
        self._batch_size = batch_size
        self._row_len = sequence_len + 1
        self._buffer_size = buffer_size
        self._refill_batch = refill_batch
        self._seed = seed
        self._begin()

    def _begin(self) -> None:
        """Stands before the first row."""
        self._buffer = BestFitBuffer()
        self._queue = self._offsets[:-1], np.diff(self._offsets)  # starts and lengths of what this epoch reads
        self._read = 0  # of the queue
        # Starts and lengths of the rests that wait for the end of the first epoch; None once its documents are read.
        self._rests: tuple[array[int], array[int]] | None = array("q"), array("q")
        self._reading = 1  # the epoch of the queue
        self._segments: list[list[int]] = []  # [row length, rows], in the order made
        self.cuts = 0

    @property
    def epoch(self) -> int:
        """The epoch, from 1, of the next token to be placed: 1 until every token of the first epoch is in a row."""
        waiting = len(self._buffer) or self._read < len(self._queue[0]) or (self._rests and self._rests[0])
        return self._reading if waiting else self._reading + 1

    @property
    def all_read(self) -> bool:
        """Whether the first epoch has read all its documents; until then the rows are the reference's."""
        return self._rests is None

    @property
    def rows(self) -> int:
        """Rows made so far."""
        return sum(rows for _, rows in self._segments)

    @property
    def tokens_placed(self) -> int:
        """Tokens in the rows made so far, repeated BOS among them."""
        return sum(row_len * rows for row_len, rows in self._segments)

    @property
    def efficiency(self) -> float:
        """Share of the tokens in rows that are the documents' own (1.0: no document was cut).

        The others are BOS, repeated before the rest of a document: one for each cut, counted at the cut.
        """
        return 1.0 - self.cuts / self.tokens_placed if self._segments else 1.0

    def __next__(self) -> Batch:
        epoch = self.epoch
        pieces: list[int] = []
        for _ in range(self._batch_size):
            self._fill_row(self._row_len, pieces)
        self._count(self._row_len, self._batch_size)
        # Rows are exactly full, so the batch is its pieces end to end.
        views = [self._tokens[start : start + length] for start, length in zip(pieces[::2], pieces[1::2], strict=True)]
        flat = np.concatenate(views, dtype=np.int32, casting="unsafe")
        if self.all_read:
            self._put_bos(flat, pieces)
        rows = flat.reshape(self._batch_size, self._row_len)
        return Batch(np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:]), epoch)

    def _put_bos(self, flat: np.ndarray, pieces: list[int]) -> None:
        """Begins every piece in the batch, (B * (T+1),), with its document's first token."""
        starts, lengths = np.array(pieces).reshape(-1, 2).T
        documents = self._offsets[np.searchsorted(self._offsets, starts, side="right") - 1]
        flat[np.cumsum(lengths) - lengths] = self._tokens[documents]

    def _fill_row(self, room: int, pieces: list[int]) -> None:
        """Appends the pieces of the next row, of `room` tokens: start, length, start, length ...

        A rest starts at the token before those that are left, and BOS takes that token's place: so its length counts
        BOS, and it is laid out as a document is.
        """
        buffer = self._buffer
        while room:
            while len(buffer) < self._buffer_size and self._refill():
                pass
            piece = buffer.take_fitting(room) or self._cut(room)
            pieces += piece
            room -= piece[1]

    def _cut(self, room: int) -> tuple[int, int]:
        """The first `room` tokens of a piece, all being longer; what is left waits as a rest.

        In a room of one token BOS stands alone, and the piece waits unchanged. The longest piece is cut, so that the
        short ones are there when they fit, and long documents do not pile up until the end of the epoch.
        """
        self.cuts += 1
        if self._rests is not None:
            start, length = self._buffer.take_shortest()
            self._rests[0].append(start + room - 1)
            self._rests[1].append(length - room + 1)
        else:
            start, length = self._buffer.take_longest()
            self._buffer.add(start + room - 1, length - room + 1)
        return start, room

    def _refill(self) -> bool:
        """Reads a refill batch of the epoch; False when nothing is left of it to read and pieces are still buffered."""
        while self._read >= len(self._queue[0]):
            if self._rests is not None:
                self._queue, self._rests = (np.array(self._rests[0]), np.array(self._rests[1])), None
            elif len(self._buffer):
                return False
            else:
                self._reading += 1
                words = [self._seed & 0xFFFFFFFF, self._seed >> 32, self._reading]
                order = np.random.RandomState(words).permutation(self.documents)
                self._queue = self._offsets[order], np.diff(self._offsets)[order]
            self._read = 0
        batch = slice(self._read, self._read + self._refill_batch)
        self._buffer.extend(self._queue[0][batch], self._queue[1][batch])
        self._read = batch.stop
        return True

    def _count(self, row_len: int, rows: int) -> None:
        if not self._segments or self._segments[-1][0] != row_len:
            self._segments.append([row_len, 0])
        self._segments[-1][1] += rows

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on with the exact next row, as a few plain JSON values.

        `segments` lists [T+1, rows] in the order made: packing again, without tokens, leads to the same place.
        """
        return {"version": PACKING_VERSION, **self._identity(), "segments": [list(s) for s in self._segments]}

    def _identity(self) -> dict[str, int]:
        """What the rows depend on, besides T: the documents, the sizes of buffer and refill, and the seed."""
        return {
            "documents": self.documents,
            "tokens": len(self._tokens),
            "buffer_size": self._buffer_size,
            "refill_batch": self._refill_batch,
            "seed": self._seed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state`, made by `state_dict` over the same documents (B and T may differ).

        It packs all rows up to there again, lengths only. Raises `UserError` when the state is one of another version
        of packing, of other documents, or of another seed or buffer.
        """
        version = state.get("version", 1)
        if version != PACKING_VERSION:
            raise UserError(
                f"this run was packed by version {version} of data/packing.py, and here is version {PACKING_VERSION}, "
                "whose rows are others: start it anew"
            )
        if (state["documents"], state["tokens"]) != (self.documents, len(self._tokens)):
            raise UserError(
                f"the saved position is one in {state['documents']:,} documents of {state['tokens']:,} tokens, but "
                f"the prepared data has {self.documents:,} of {len(self._tokens):,}: "
                "resume with the data that the run started with"
            )
        for name, value in self._identity().items():
            if state[name] != value:
                raise UserError(
                    f"the saved position was packed with {name} {state[name]}, not {value}: "
                    f"resume with the {name} that the run started with"
                )
        self._begin()
        for row_len, rows in state["segments"]:
            for _ in range(rows):
                self._fill_row(row_len, [])
            self._count(row_len, rows)
