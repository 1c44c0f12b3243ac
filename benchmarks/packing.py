"""Best-fit packing, a straightforward scan of the buffer against `PackedBatches`, in one run on one core.

    python benchmarks/packing.py

Both sides pack the same tokens, already tokenized, and must yield the same rows until all documents have been read.
Then `PackedBatches` alone: the rests at the end of the first epoch, the second epoch, and the way back to a saved
position.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice, pairwise

import numpy as np

from mlx_autoresearch.data.packing import PackedBatches

BATCH_SIZE = 16


def scan_rows(
    tokens: np.ndarray,
    offsets: np.ndarray,
    *,
    row_len: int,
    buffer_size: int = 1000,
    refill_batch: int = 128,
    endless: bool = True,
) -> Iterator[np.ndarray]:
    """Yields (row_len,) rows by looking at every buffered document each time: the definition, and slow.

    Not `endless`: it stops before the first row for which a document would be read a second time.
    """
    documents = [tokens[start:end] for start, end in pairwise(offsets)]
    refills = _refills(documents, refill_batch, endless)
    buffer: list[np.ndarray] = []
    while True:
        row = np.empty(row_len, np.int32)
        filled = 0
        while filled < row_len:
            while len(buffer) < buffer_size:
                refill = next(refills, None)
                if refill is None:
                    return
                buffer.extend(refill)
            room = row_len - filled
            best, best_len = -1, 0
            shortest, shortest_len = -1, float("inf")
            for i, document in enumerate(buffer):
                if best_len < len(document) <= room:
                    best, best_len = i, len(document)
                if len(document) < shortest_len:
                    shortest, shortest_len = i, len(document)
            piece = buffer.pop(best if best >= 0 else shortest)[:room]
            row[filled : filled + len(piece)] = piece
            filled += len(piece)
        yield row


def _refills(documents: list[np.ndarray], size: int, endless: bool) -> Iterator[list[np.ndarray]]:
    while True:
        for i in range(0, len(documents), size):
            yield documents[i : i + size]
        if not endless:
            return


def synthetic_corpus(documents: int, mean_len: int) -> tuple[np.ndarray, np.ndarray]:
    """Random uint16 tokens cut into gamma-distributed documents of about `mean_len` tokens: tokens, offsets."""
    rng = np.random.default_rng(0)
    lengths = np.maximum(2, rng.gamma(2.0, mean_len / 2, documents)).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return rng.integers(0, 8192, offsets[-1]).astype(np.uint16), offsets


def speed_until(packed: PackedBatches, over: Callable[[], bool]) -> tuple[float, float]:
    """Makes batches until `over()`: million tokens a second, and the longest wait for a batch in milliseconds."""
    placed, longest = packed.tokens_placed, 0.0
    start = before = time.perf_counter()
    while not over():
        next(packed)
        now = time.perf_counter()
        before, longest = now, max(longest, now - before)
    return (packed.tokens_placed - placed) / (before - start) / 1e6, longest * 1e3


def compare(tokens: np.ndarray, offsets: np.ndarray, sequence_len: int) -> None:
    """Prints both sides for one row length."""
    scanned = scan_rows(tokens, offsets, row_len=sequence_len + 1)
    start = time.perf_counter()
    rows = list(islice(scanned, 10 * BATCH_SIZE))
    scan = len(rows) * sequence_len / (time.perf_counter() - start) / 1e6

    packed = PackedBatches(tokens, offsets, batch_size=BATCH_SIZE, sequence_len=sequence_len)
    for i, batch in enumerate(islice(packed, 10)):
        expected = rows[i * BATCH_SIZE : (i + 1) * BATCH_SIZE]
        assert np.array_equal(batch.inputs, [row[:-1] for row in expected]), "rows differ"
    once, _ = speed_until(packed, lambda: packed.all_read)
    cuts, placed = packed.cuts, packed.tokens_placed
    rests, longest = speed_until(packed, lambda: packed.epoch > 1)
    second, longest_later = speed_until(packed, lambda: packed.epoch > 2)
    again = PackedBatches(tokens, offsets, batch_size=BATCH_SIZE, sequence_len=sequence_len)
    start = time.perf_counter()
    again.load_state_dict(packed.state_dict())
    replay = again.tokens_placed / (time.perf_counter() - start) / 1e6
    print(
        f"T {sequence_len:>4}: scan {scan:.1f}, PackedBatches {once:.1f} million tokens/s ({once / scan:.0f}x) until "
        f"all documents were read, {placed / len(tokens):.1%} of the first epoch\n"
        f"        then {cuts:,} rests, of about {(len(tokens) - placed) / cuts + 1:.0f} tokens: {rests:.1f}; "
        f"second epoch: {second:.1f}; longest wait for a batch: {max(longest, longest_later):.0f} ms\n"
        f"        resuming: {replay:.1f} million tokens/s; repeated BOS: {1 - packed.efficiency:.2%} of all tokens"
    )


def main() -> None:
    tokens, offsets = synthetic_corpus(documents=200_000, mean_len=350)
    print(
        f"{len(offsets) - 1:,} documents of {np.diff(offsets).mean():.0f} tokens on average, "
        f"batches of {BATCH_SIZE} rows"
    )
    for sequence_len in (512, 2048):
        compare(tokens, offsets, sequence_len)


if __name__ == "__main__":
    main()
