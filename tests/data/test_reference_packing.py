from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from mlx_autoresearch.data.reference_packing import reference_pieces, reference_rows
from mlx_autoresearch.errors import UserError
from tests.support.packing import FIXTURES, make_corpus, scan_rows

# (longest document, documents, T, buffer_size, refill_batch)
CASES = {
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


def corpus(name: str) -> tuple[np.ndarray, np.ndarray]:
    longest, documents = CASES[name][:2]
    rng = np.random.default_rng(len(name))
    least, most = (-longest // 2, -longest) if longest < 0 else (1, longest + 1)
    return make_corpus(rng.integers(least, most, documents))


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_rows_are_the_references(path: Path) -> None:
    case = np.load(path)
    meta = json.loads(str(case["meta"]))
    offsets = np.concatenate([[0], np.cumsum(case["doc_lengths"])])
    sizes = {"buffer_size": meta["buffer_size"], "refill_batch": meta["refill_batch"]}
    rows = reference_rows(case["doc_tokens"], offsets, sequence_len=meta["T"], **sizes)
    assert np.array_equal(list(islice(rows, len(case["rows"]))), case["rows"])


@pytest.mark.parametrize("name", CASES)
def test_rows_are_those_of_a_scan_over_several_epochs(name: str) -> None:
    _, _, sequence_len, buffer_size, refill_batch = CASES[name]
    tokens, offsets = corpus(name)
    sizes = {"buffer_size": buffer_size, "refill_batch": refill_batch}
    expected = list(islice(scan_rows(tokens, offsets, row_len=sequence_len + 1, **sizes), 180))
    got = list(islice(reference_rows(tokens, offsets, sequence_len=sequence_len, **sizes), 180))
    assert np.array_equal(got, expected)
    assert {row.dtype for row in got} == {np.dtype(np.int32)}


@pytest.mark.parametrize("name", CASES)
def test_pieces_are_the_beginnings_of_documents(name: str) -> None:
    _, _, sequence_len, buffer_size, refill_batch = CASES[name]
    _, offsets = corpus(name)
    lengths = dict(zip(offsets[:-1].tolist(), np.diff(offsets).tolist(), strict=True))
    sizes = {"buffer_size": buffer_size, "refill_batch": refill_batch}
    for pieces in islice(reference_pieces(offsets, sequence_len=sequence_len, **sizes), 180):
        assert sum(length for _, length in pieces) == sequence_len + 1
        assert all(0 < length <= lengths[start] for start, length in pieces)
        assert all(length == lengths[start] for start, length in pieces[:-1])


def test_offsets_that_describe_no_documents_are_refused() -> None:
    tokens, _ = make_corpus([5, 9, 4])
    with pytest.raises(UserError, match="offsets"):
        next(reference_rows(tokens, np.array([0, 5, 9]), sequence_len=4))
