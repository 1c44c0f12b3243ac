from __future__ import annotations

import json
import os
import runpy
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from mlx_autoresearch.data.packing import PackedBatches
from mlx_autoresearch.errors import UserError

TESTS = Path(__file__).parents[1]
FIXTURES = sorted(Path(os.environ.get("PARITY_DIR", TESTS / "parity")).glob("packing*.npz"))
# The benchmark's straightforward scan is also the definition the tests compare with.
scan_rows = runpy.run_path(str(TESTS.parent / "benchmarks" / "packing.py"))["scan_rows"]


def make_corpus(lengths: list[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct tokens, so that a row shows which documents it was made of."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.arange(offsets[-1], dtype=np.uint32), offsets


def rows_of(batches: PackedBatches, count: int) -> np.ndarray:
    """The first `count` batches as (rows, T+1)."""
    return np.concatenate([np.column_stack([b.inputs, b.targets[:, -1]]) for b in islice(batches, count)])


def test_fixtures_are_there() -> None:
    assert FIXTURES


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
@pytest.mark.parametrize("batch_size", [1, 8])
def test_rows_are_the_references(path: Path, batch_size: int) -> None:
    case = np.load(path)
    meta = json.loads(str(case["meta"]))
    batches = PackedBatches(
        case["doc_tokens"],
        np.concatenate([[0], np.cumsum(case["doc_lengths"])]),
        batch_size=batch_size,
        sequence_len=meta["T"],
        buffer_size=meta["buffer_size"],
        refill_batch=meta["refill_batch"],
    )
    expected = case["rows"]
    got = rows_of(batches, -(-len(expected) // batch_size))
    assert np.array_equal(got[: len(expected)], expected)


# (longest document, documents, T, buffer_size, refill_batch)
RANDOM_CASES = {
    "typical": (60, 500, 32, 50, 16),
    "many_longer_than_a_row": (200, 300, 16, 20, 7),
    "all_longer_than_a_row": (-40, 60, 16, 10, 4),
    "single_tokens": (1, 30, 8, 12, 5),
    "ties": (3, 200, 10, 40, 9),
    "buffer_wraps_epochs": (20, 7, 16, 50, 4),
    "one_document": (9, 1, 16, 5, 3),
    "buffer_of_one": (30, 40, 16, 1, 1),
    "refill_larger_than_corpus": (30, 11, 16, 5, 64),
}


def random_lengths(name: str) -> np.ndarray:
    longest, documents = RANDOM_CASES[name][:2]
    rng = np.random.default_rng(len(name))
    return rng.integers(-longest // 2, -longest, documents) if longest < 0 else rng.integers(1, longest + 1, documents)


@pytest.mark.parametrize("name", RANDOM_CASES)
def test_rows_are_those_of_a_scan_and_survive_a_restore(name: str) -> None:
    _, _, sequence_len, buffer_size, refill_batch = RANDOM_CASES[name]
    tokens, offsets = make_corpus(random_lengths(name))
    sizes = {"buffer_size": buffer_size, "refill_batch": refill_batch}
    expected = np.stack(list(islice(scan_rows(tokens, offsets, row_len=sequence_len + 1, **sizes), 180)))

    packed = PackedBatches(tokens, offsets, batch_size=3, sequence_len=sequence_len, **sizes)
    rng = np.random.default_rng(1)
    got = []
    while len(got) < 60:
        got.extend(rows_of(packed, 1) for _ in range(min(int(rng.integers(1, 20)), 60 - len(got))))
        state = json.loads(json.dumps(packed.state_dict()))
        packed = PackedBatches(tokens, offsets, batch_size=3, sequence_len=sequence_len, **sizes)
        packed.load_state_dict(state)
    assert np.array_equal(np.concatenate(got), expected)
    assert packed.rows == len(expected)
    assert packed.tokens_placed == expected.size


def test_targets_are_inputs_one_later() -> None:
    tokens, offsets = make_corpus([5, 9, 4, 7])
    batch = next(PackedBatches(tokens.astype(np.uint16), offsets, batch_size=2, sequence_len=6))
    assert batch.inputs.shape == batch.targets.shape == (2, 6)
    assert batch.inputs.dtype == batch.targets.dtype == np.int32
    assert np.array_equal(batch.inputs[:, 1:], batch.targets[:, :-1])


def test_every_row_starts_with_bos() -> None:
    lengths = random_lengths("typical")
    tokens, offsets = make_corpus(lengths)
    tokens = tokens + 1
    tokens[offsets[:-1]] = 0
    batches = PackedBatches(tokens, offsets, batch_size=4, sequence_len=32, buffer_size=50, refill_batch=16)
    assert all((batch.inputs[:, 0] == 0).all() for batch in islice(batches, 20))


def test_epoch_is_that_of_the_last_refill() -> None:
    # Five documents of exactly one row, read two at a time: 2, 2, 1 | 2, 2, 1 | …
    tokens, offsets = make_corpus([4] * 5)
    batches = PackedBatches(tokens, offsets, batch_size=1, sequence_len=3, buffer_size=1, refill_batch=2)
    assert [batch.epoch for batch in islice(batches, 11)] == [1] * 5 + [2] * 5 + [3]
    # With three buffered at all times the refills run ahead of the rows.
    batches = PackedBatches(tokens, offsets, batch_size=1, sequence_len=3, buffer_size=3, refill_batch=2)
    assert [batch.epoch for batch in islice(batches, 9)] == [1, 1, 1, 2, 2, 2, 2, 2, 3]


def test_cropping_is_counted() -> None:
    tokens, offsets = make_corpus([3, 9])
    batches = PackedBatches(tokens, offsets, batch_size=1, sequence_len=4, buffer_size=2, refill_batch=2)
    assert batches.efficiency == 1.0
    next(batches)  # 3 whole, then the 3 of the next epoch cropped to 2
    assert (batches.tokens_placed, batches.tokens_cropped) == (5, 1)
    assert batches.efficiency == pytest.approx(5 / 6)
    restored = PackedBatches(tokens, offsets, batch_size=1, sequence_len=4, buffer_size=2, refill_batch=2)
    restored.load_state_dict(batches.state_dict())
    assert restored.tokens_cropped == 1


def test_a_document_longer_than_any_int64_key_keeps_its_place() -> None:
    # 2^23 tokens shifted by the arrival bits would overflow 64 bits and look short.
    lengths = [1 << 23, 5, 3]
    tokens = np.zeros(sum(lengths), np.uint16)
    tokens[1 << 23 :] = [1, 1, 1, 1, 1, 2, 2, 2]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    row = next(PackedBatches(tokens, offsets, batch_size=1, sequence_len=7, buffer_size=3, refill_batch=3))
    assert row.inputs.tolist() == [[1, 1, 1, 1, 1, 2, 2]]


def test_batches_do_not_share_memory() -> None:
    tokens, offsets = make_corpus([5, 9, 4, 7])
    batches = PackedBatches(tokens, offsets, batch_size=2, sequence_len=6)
    first = next(batches)
    kept = first.inputs.copy()
    next(batches)
    assert np.array_equal(first.inputs, kept)


def test_bad_input_is_refused() -> None:
    tokens, offsets = make_corpus([5, 9, 4])
    for name in ("batch_size", "sequence_len", "buffer_size", "refill_batch"):
        with pytest.raises(ValueError, match=name):
            PackedBatches(tokens, offsets, **{"batch_size": 1, "sequence_len": 4, name: 0})
    for bad in ([0, 5, 5, 18], [0, 9, 5, 18], [0, 5, 9], [1, 5, 18]):
        with pytest.raises(UserError, match="offsets"):
            PackedBatches(tokens, np.array(bad), batch_size=1, sequence_len=4)
    for empty in ([0], []):
        with pytest.raises(UserError, match="no documents"):
            PackedBatches(tokens[:0], np.array(empty, np.int64), batch_size=1, sequence_len=4)


def test_a_state_of_other_data_is_refused() -> None:
    tokens, offsets = make_corpus([5, 9, 4])
    state = next_state(PackedBatches(tokens, offsets, batch_size=1, sequence_len=4))
    for other in ([5, 9, 4, 1], [5, 9, 5]):
        with pytest.raises(UserError, match="resume with the data"):
            PackedBatches(*make_corpus(other), batch_size=1, sequence_len=4).load_state_dict(state)


def next_state(batches: PackedBatches) -> dict[str, object]:
    next(batches)
    return batches.state_dict()
