"""The reference's own packing (karpathy/autoresearch, `make_dataloader`): endless rows, in which cropping loses text.

A row is filled by the longest buffered document that fits entirely; when none fits, by the shortest one, cropped to the
room that is left, and the rest of it is thrown away. The buffer is refilled across the end of the documents, in the
same order again, so that best fit takes some documents of the next epoch before others of this one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .best_fit import BestFitBuffer, checked_offsets


def reference_rows(
    tokens: np.ndarray, offsets: np.ndarray, *, sequence_len: int, buffer_size: int = 1000, refill_batch: int = 128
) -> Iterator[np.ndarray]:
    """Yields rows, (T+1,) int32, without end.

    tokens (N,), offsets (documents + 1,), sequence_len (T), buffer_size and refill_batch are those of `PackedBatches`.
    Raises `UserError`, at the first row, for offsets that do not describe documents.
    """
    offsets = checked_offsets(tokens, offsets)
    # asarray: slicing a memmap builds a memmap, which costs more than the copy it is for.
    tokens = np.asarray(tokens)
    plan = reference_pieces(offsets, sequence_len=sequence_len, buffer_size=buffer_size, refill_batch=refill_batch)
    for pieces in plan:
        row = [tokens[start : start + length] for start, length in pieces]
        yield np.concatenate(row, dtype=np.int32, casting="unsafe")


def reference_pieces(
    offsets: np.ndarray, *, sequence_len: int, buffer_size: int = 1000, refill_batch: int = 128
) -> Iterator[list[tuple[int, int]]]:
    """Yields what the rows are made of: for each the starts and lengths of its pieces, T+1 tokens together.

    Every start is the offset of a document. A refill never straddles two epochs: the last one of an epoch may be
    shorter than `refill_batch` documents.
    """
    tokens = int(offsets[-1])
    buffer = BestFitBuffer()
    document, before = 0, 0  # the next document to read, and the tokens of the epochs before it
    while True:
        pieces: list[tuple[int, int]] = []
        room = sequence_len + 1
        while room:
            while len(buffer) < buffer_size:
                bounds = offsets[document : document + refill_batch + 1]
                # Starts go on from epoch to epoch: of equal lengths the one that was read first is taken first.
                buffer.extend(bounds[:-1] + before, np.diff(bounds))
                document += len(bounds) - 1
                if document == len(offsets) - 1:
                    document, before = 0, before + tokens
            start, length = buffer.take_fitting(room) or buffer.take_shortest()
            length = min(length, room)
            pieces.append((start % tokens, length))
            room -= length
        yield pieces
