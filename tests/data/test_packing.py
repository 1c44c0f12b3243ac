from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from mlx_autoresearch.data.packing import PackedBatches
from mlx_autoresearch.errors import UserError
from tests.support.packing import CORPORA, FIXTURES, Check, lengths_of, make_corpus, rows_of, scan_rows


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
    assert not batches.all_read


# Buffers much smaller than the corpus, of one document, larger than most; the reference's.
BUFFERS = [(20, 7), (1, 1), (300, 64), (1000, 128)]


def rows_of_epochs(batches: PackedBatches, epochs: int) -> Iterator[np.ndarray]:
    while batches.epoch <= epochs:
        yield rows_of(batches, 1)


@pytest.mark.parametrize("name", CORPORA)
@pytest.mark.parametrize("sequence_len", [1, 2, 3, 16, 64])
def test_an_epoch_places_every_token_once(name: str, sequence_len: int) -> None:
    lengths = lengths_of(name)
    tokens, offsets = make_corpus(lengths)
    check = Check(lengths)
    for buffer_size, refill_batch in BUFFERS[: 1 if name == "thousands" else None]:
        sizes = {"buffer_size": buffer_size, "refill_batch": refill_batch}
        batches = PackedBatches(tokens, offsets, batch_size=3, sequence_len=sequence_len, **sizes)
        rows = np.concatenate(list(rows_of_epochs(batches, 3)))
        check.pieces_begin_with_bos(rows)
        check.bos_stands_alone_only_where_it_must(rows)
        epochs = check.epochs(rows)
        assert len(epochs) >= 3
        everything = np.flatnonzero(check.own)
        assert all(np.array_equal(np.sort(epoch), everything) for epoch in epochs)
        assert batches.rows == len(rows)
        assert batches.tokens_placed == rows.size


@pytest.mark.parametrize("name", CORPORA)
@pytest.mark.parametrize("sequence_len", [1, 10, 64])
def test_rows_are_those_of_a_scan_until_all_documents_were_read(name: str, sequence_len: int) -> None:
    tokens, offsets = make_corpus(lengths_of(name)[:600])
    for buffer_size, refill_batch in BUFFERS:
        sizes = {"buffer_size": buffer_size, "refill_batch": refill_batch}
        expected = list(scan_rows(tokens, offsets, row_len=sequence_len + 1, endless=False, **sizes))
        batches = PackedBatches(tokens, offsets, batch_size=1, sequence_len=sequence_len, **sizes)
        if expected:
            assert np.array_equal(rows_of(batches, len(expected)), expected)
        assert not batches.all_read
        next(batches)
        assert batches.all_read


@pytest.mark.parametrize("name", CORPORA)
@pytest.mark.parametrize("sequence_len", [1, 16])
def test_the_epoch_is_that_of_the_first_token(name: str, sequence_len: int) -> None:
    lengths = lengths_of(name)[:300]
    tokens, offsets = make_corpus(lengths)
    own = Check(lengths).own
    batches = PackedBatches(tokens, offsets, batch_size=2, sequence_len=sequence_len, buffer_size=20, refill_batch=7)
    placed = 0
    while placed < 3 * own.sum():
        epoch = batches.epoch
        batch = next(batches)
        assert batch.epoch == epoch == placed // own.sum() + 1
        placed += own[np.column_stack([batch.inputs, batch.targets[:, -1]])].sum()


def test_the_first_batch_is_of_the_first_epoch_however_small_the_corpus() -> None:
    batches = PackedBatches(*make_corpus([4]), batch_size=8, sequence_len=31)
    assert batches.epoch == 1
    assert next(batches).epoch == 1
    assert next(batches).epoch == 65


def test_later_epochs_read_in_orders_of_their_own_that_the_seed_gives() -> None:
    # Documents of one row each in a buffer of one: rows come in the order of reading.
    tokens, offsets = make_corpus([4] * 100)

    def orders(seed: int) -> list[list[int]]:
        sizes = {"buffer_size": 1, "refill_batch": 1}
        batches = PackedBatches(tokens, offsets, batch_size=100, sequence_len=3, seed=seed, **sizes)
        return [(batch.inputs[:, 0] // 4).tolist() for batch in islice(batches, 4)]

    first, *later = orders(7)
    assert first == list(range(100))
    assert all(sorted(order) == first for order in later)
    assert len({tuple(order) for order in [first, *later]}) == 4
    assert orders(7) == [first, *later]
    for other in (8, 7 + 2**32, 2**64 - 1):
        assert orders(other)[0] == first
        assert all(a != b for a, b in zip(orders(other)[1:], later, strict=True))
    assert later[0] == np.random.RandomState([7, 0, 2]).permutation(100).tolist()


def test_targets_are_inputs_one_later() -> None:
    tokens, offsets = make_corpus([5, 9, 4, 7])
    batch = next(PackedBatches(tokens.astype(np.uint16), offsets, batch_size=2, sequence_len=6))
    assert batch.inputs.shape == batch.targets.shape == (2, 6)
    assert batch.inputs.dtype == batch.targets.dtype == np.int32
    assert np.array_equal(batch.inputs[:, 1:], batch.targets[:, :-1])


def test_rests_wait_for_the_end_of_the_first_epoch() -> None:
    tokens, offsets = make_corpus([7, 3, 4])
    sizes = {"buffer_size": 1, "refill_batch": 1}
    batches = PackedBatches(tokens, offsets, batch_size=1, sequence_len=3, **sizes)
    rows = rows_of(batches, 4).tolist()
    alone = PackedBatches(*make_corpus([7]), batch_size=1, sequence_len=3)
    assert [batch.epoch for batch in islice(alone, 4)] == [1, 1, 2, 2]
    assert rows == [[0, 1, 2, 3], [7, 8, 9, 10], [0, 4, 5, 6], [10, 11, 12, 13]]
    assert batches.epoch == 2


def test_repeated_bos_is_counted() -> None:
    tokens, offsets = make_corpus([3, 9])
    batches = PackedBatches(tokens, offsets, batch_size=1, sequence_len=4, buffer_size=2, refill_batch=2)
    assert (batches.efficiency, batches.tokens_placed) == (1.0, 0)
    rows = rows_of(batches, 2)  # 3 whole and 2 of 9; then 5 of the 8 that are left, BOS among them
    assert rows.tolist() == [[0, 1, 2, 3, 4], [3, 5, 6, 7, 8]]
    assert (batches.tokens_placed, batches.cuts) == (10, 2)
    assert batches.efficiency == pytest.approx(8 / 10)
    restored = PackedBatches(tokens, offsets, batch_size=1, sequence_len=4, buffer_size=2, refill_batch=2)
    restored.load_state_dict(batches.state_dict())
    assert restored.efficiency == batches.efficiency


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint64])
def test_a_long_document_keeps_its_place(dtype: type) -> None:
    # 2^23 tokens shifted by the bits of a start would overflow 64 bits and look short.
    lengths = [1 << 23, 5, 3]
    tokens = np.zeros(sum(lengths), np.uint16)
    tokens[1 << 23 :] = [1, 1, 1, 1, 1, 2, 2, 2]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(dtype)
    row = next(PackedBatches(tokens, offsets, batch_size=1, sequence_len=7, buffer_size=3, refill_batch=3))
    assert row.inputs.tolist() == [[1, 1, 1, 1, 1, 2, 2]]


def test_batches_do_not_share_memory_with_each_other_or_the_tokens() -> None:
    tokens, offsets = make_corpus([5, 9, 4, 7])
    tokens = tokens.astype(np.int32)
    batches = PackedBatches(tokens, offsets, batch_size=2, sequence_len=6)
    first = next(batches)
    kept = first.inputs.copy()
    for _ in range(20):
        next(batches)
    assert np.array_equal(first.inputs, kept)
    assert np.array_equal(tokens, np.arange(25))


def test_bad_input_is_refused() -> None:
    tokens, offsets = make_corpus([5, 9, 4])
    for name in ("batch_size", "sequence_len", "buffer_size", "refill_batch"):
        with pytest.raises(ValueError, match=name):
            PackedBatches(tokens, offsets, **{"batch_size": 1, "sequence_len": 4, name: 0})
    for seed in (-1, 2**64):
        with pytest.raises(ValueError, match="seed"):
            PackedBatches(tokens, offsets, batch_size=1, sequence_len=4, seed=seed)
    for bad in ([0, 5, 5, 18], [0, 9, 5, 18], [0, 5, 9], [1, 5, 18]):
        with pytest.raises(UserError, match="offsets"):
            PackedBatches(tokens, np.array(bad), batch_size=1, sequence_len=4)
    for empty in ([0], []):
        with pytest.raises(UserError, match="no documents"):
            PackedBatches(tokens[:0], np.array(empty, np.int64), batch_size=1, sequence_len=4)
