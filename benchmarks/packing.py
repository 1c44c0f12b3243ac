"""Best-fit packing, a straightforward scan of the buffer against `PackedBatches`, in one run on one core.

    python benchmarks/packing.py

Both sides pack the same tokens, already tokenized, and must yield the same rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice, pairwise

import numpy as np

from mlx_autoresearch.data.packing import PackedBatches


def scan_rows(
    tokens: np.ndarray, offsets: np.ndarray, *, row_len: int, buffer_size: int = 1000, refill_batch: int = 128
) -> Iterator[np.ndarray]:
    """Yields (row_len,) rows by looking at every buffered document each time: the definition, and slow."""
    documents = [tokens[start:end] for start, end in pairwise(offsets)]
    refills = _refills(documents, refill_batch)
    buffer: list[np.ndarray] = []
    while True:
        row = np.empty(row_len, np.int32)
        filled = 0
        while filled < row_len:
            while len(buffer) < buffer_size:
                buffer.extend(next(refills))
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


def _refills(documents: list[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    while True:
        for i in range(0, len(documents), size):
            yield documents[i : i + size]


def synthetic_corpus(documents: int, mean_len: int) -> tuple[np.ndarray, np.ndarray]:
    """Random uint16 tokens cut into gamma-distributed documents of about `mean_len` tokens: tokens, offsets."""
    rng = np.random.default_rng(0)
    lengths = np.maximum(2, rng.gamma(2.0, mean_len / 2, documents)).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return rng.integers(0, 8192, offsets[-1]).astype(np.uint16), offsets


def main() -> None:
    tokens, offsets = synthetic_corpus(documents=60_000, mean_len=350)
    print(f"{len(offsets) - 1:,} documents of {np.diff(offsets).mean():.0f} tokens on average, batches of 16 rows")
    for sequence_len in (512, 2048):
        scanned = scan_rows(tokens, offsets, row_len=sequence_len + 1)
        start = time.perf_counter()
        rows = list(islice(scanned, 160))
        scan_speed = len(rows) * sequence_len / (time.perf_counter() - start)

        packed = PackedBatches(tokens, offsets, batch_size=16, sequence_len=sequence_len)
        for i, batch in enumerate(islice(packed, 10)):
            assert np.array_equal(batch.inputs, [row[:-1] for row in rows[i * 16 : (i + 1) * 16]]), "rows differ"
        speeds = []
        for _ in range(3):
            start = time.perf_counter()
            count = sum(batch.inputs.size for batch in islice(packed, 10_000_000 // (16 * sequence_len)))
            speeds.append(count / (time.perf_counter() - start))
        print(
            f"T {sequence_len:>4}: scan {scan_speed / 1e6:.1f}, PackedBatches {max(speeds) / 1e6:.1f} million tokens/s "
            f"({max(speeds) / scan_speed:.0f}x; cropping threw away {1 - packed.efficiency:.1%} of the tokens)"
        )


if __name__ == "__main__":
    main()
