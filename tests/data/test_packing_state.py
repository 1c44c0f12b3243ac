"""A saved position of packing: what it holds, where it leads, and when it is refused."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from mlx_autoresearch.data.packing import PACKING_VERSION, PackedBatches
from mlx_autoresearch.errors import UserError
from tests.support.packing import Check, lengths_of, make_corpus, rows_of


def saved(batches: PackedBatches) -> dict[str, object]:
    return json.loads(json.dumps(batches.state_dict()))


@pytest.mark.parametrize("name", ["one_document", "only_bos", "ties", "typical", "a_giant_among_small", "long_tail"])
def test_a_restored_stream_goes_on_with_the_exact_next_row(name: str) -> None:
    tokens, offsets = make_corpus(lengths_of(name))

    def new(batch_size: int = 2, sequence_len: int = 16) -> PackedBatches:
        sizes = {"buffer_size": 20, "refill_batch": 7}
        return PackedBatches(tokens, offsets, batch_size=batch_size, sequence_len=sequence_len, seed=3, **sizes)

    whole = new()
    rows, states, epochs = [], [saved(whole)], [1]
    while whole.epoch <= 3 or len(rows) < 40:
        rows.append(rows_of(whole, 1))
        states.append(saved(whole))
        epochs.append(whole.epoch)
    points = np.random.default_rng(2).integers(0, len(rows) - 6, 12)
    for point in {0, *points.tolist()}:
        restored = new()
        restored.load_state_dict(states[point])
        assert (restored.epoch, restored.rows) == (epochs[point], 2 * point)
        assert np.array_equal(rows_of(restored, 6), np.concatenate(rows[point : point + 6]))
        assert saved(restored) == states[point + 6]
        of_three = new(batch_size=3)
        of_three.load_state_dict(states[point])
        assert np.array_equal(rows_of(of_three, 4), np.concatenate(rows[point : point + 6]))
        shorter = new(sequence_len=5)
        shorter.load_state_dict(states[point])
        assert shorter.epoch == epochs[point]
        next(shorter)
        longer = new(sequence_len=23)
        longer.load_state_dict(saved(shorter))
        assert (longer.tokens_placed, longer.cuts) == (shorter.tokens_placed, shorter.cuts)
        twin = new(sequence_len=5)
        twin.load_state_dict(saved(longer))
        assert np.array_equal(rows_of(twin, 5), rows_of(shorter, 5))


def test_resuming_at_another_length_keeps_epochs_whole() -> None:
    lengths = lengths_of("typical")
    tokens, offsets = make_corpus(lengths)
    check = Check(lengths)
    state, parts = None, []
    for sequence_len in (16, 7, 40, 1, 16) * 30:
        batches = PackedBatches(tokens, offsets, batch_size=4, sequence_len=sequence_len, buffer_size=50)
        if state is not None:
            batches.load_state_dict(state)
        parts += [rows_of(batches, 1) for _ in range(5)]
        state = saved(batches)
    assert batches.rows == sum(map(len, parts))
    epochs = check.epochs(np.concatenate([part.ravel() for part in parts]))
    assert len(epochs) >= 2
    assert all(np.array_equal(np.sort(epoch), np.flatnonzero(check.own)) for epoch in epochs)


def test_the_rows_of_this_version_are_what_they_were() -> None:
    """A change of the rows needs another PACKING_VERSION: a position that was saved would lead elsewhere."""
    batches = PackedBatches(*make_corpus(lengths_of("typical")), batch_size=1000, sequence_len=16, buffer_size=20)
    rows = rows_of(batches, 3)
    assert batches.epoch == 4
    digest = hashlib.sha256(rows.astype("<i4").tobytes()).hexdigest()
    assert (PACKING_VERSION, digest[:16]) == (2, "5b1160554a5ea229")


def test_the_state_stays_small() -> None:
    tokens, offsets = make_corpus(lengths_of("typical"))
    batches = PackedBatches(tokens, offsets, batch_size=4, sequence_len=16)
    state = batches.state_dict()
    for _ in range(300):
        next(batches)
    assert len(json.dumps(batches.state_dict())) < 200
    assert state["segments"] == []
    assert batches.state_dict()["segments"] == [[17, 1200]]


def next_state(batches: PackedBatches) -> dict[str, object]:
    next(batches)
    return batches.state_dict()


def test_a_state_of_other_data_is_refused() -> None:
    tokens, offsets = make_corpus([5, 9, 4])
    state = next_state(PackedBatches(tokens, offsets, batch_size=1, sequence_len=4))
    for other in ([5, 9, 4, 1], [5, 9, 5]):
        with pytest.raises(UserError, match="resume with the data"):
            PackedBatches(*make_corpus(other), batch_size=1, sequence_len=4).load_state_dict(state)


@pytest.mark.parametrize("other", [{"seed": 1}, {"buffer_size": 7}, {"refill_batch": 2}])
def test_a_state_of_another_seed_or_buffer_is_refused(other: dict[str, int]) -> None:
    corpus = make_corpus([5, 9, 4])
    state = next_state(PackedBatches(*corpus, batch_size=1, sequence_len=4))
    (name,) = other
    with pytest.raises(UserError, match=f"{name} .*: resume with the {name}"):
        PackedBatches(*corpus, batch_size=1, sequence_len=4, **other).load_state_dict(state)


def test_a_state_of_another_version_is_refused() -> None:
    batches = PackedBatches(*make_corpus([5, 9, 4]), batch_size=1, sequence_len=4)
    old = {"documents": 3, "tokens": 18, "cursor": 3, "epoch": 1, "rows": 1, "buffer": [1, 2]}
    with pytest.raises(UserError, match=r"packed by version 1 .*: start it anew"):
        batches.load_state_dict(old)
    newer = batches.state_dict() | {"version": PACKING_VERSION + 1}
    with pytest.raises(UserError, match=f"packed by version {PACKING_VERSION + 1} .*: start it anew"):
        batches.load_state_dict(newer)
