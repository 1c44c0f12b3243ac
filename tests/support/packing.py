"""Corpora of every shape, the straightforward packing to compare with, and a check of packed rows."""

from __future__ import annotations

import os
import runpy
from itertools import islice
from pathlib import Path

import numpy as np

from mlx_autoresearch.data.packing import PackedBatches

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


def lengths_of(name: str) -> np.ndarray:
    """Lengths of a corpus, (documents,), always the same for a name."""
    rng = np.random.default_rng(len(name))
    return {
        "one_document": np.array([9]),
        "one_document_of_bos": np.array([1]),
        "one_giant": np.array([5_000]),
        "two_equal": np.array([7, 7]),
        "only_bos": np.full(30, 1),
        "all_2": np.full(200, 2),
        "single_tokens_among_others": rng.choice([1, 1, 2, 9], 150),
        "ties": rng.integers(1, 4, 400),
        "typical": rng.integers(1, 61, 500),
        "all_longer_than_a_row": rng.integers(66, 130, 60),
        "a_giant_among_small": np.concatenate([rng.integers(1, 9, 100), [4_000], rng.integers(1, 9, 100)]),
        "long_tail": np.ceil(rng.pareto(1.1, 300) * 5).astype(int) + 1,
        "thousands": rng.integers(1, 12, 5_000),
    }[name]


CORPORA = [
    "one_document",
    "one_document_of_bos",
    "one_giant",
    "two_equal",
    "only_bos",
    "all_2",
    "single_tokens_among_others",
    "ties",
    "typical",
    "all_longer_than_a_row",
    "a_giant_among_small",
    "long_tail",
    "thousands",
]


class Check:
    """Which tokens rows of `make_corpus(lengths)` hold, (rows, T+1) each.

    The `own` tokens of a document are all but its BOS, and BOS where it is the whole document: what an epoch must place
    exactly once. BOS of longer documents stands before every piece.
    """

    def __init__(self, lengths: np.ndarray) -> None:
        self.lengths = lengths
        self.document = np.repeat(np.arange(len(lengths)), lengths)
        self.bos = np.zeros(len(self.document), bool)
        self.bos[np.cumsum(lengths) - lengths] = True
        self.own = ~self.bos | (lengths[self.document] == 1)

    def pieces_begin_with_bos(self, rows: np.ndarray) -> None:
        assert self.bos[rows[:, 0]].all()
        flat = rows.ravel()
        bos = self.bos[flat]
        begins = np.maximum.accumulate(np.where(bos, np.arange(len(flat)), 0))
        assert np.array_equal(self.document[flat], self.document[flat[begins]])
        inside = np.flatnonzero(~bos[1:] & ~bos[:-1]) + 1
        assert np.array_equal(flat[inside], flat[inside - 1] + 1)

    def bos_stands_alone_only_where_it_must(self, rows: np.ndarray) -> None:
        bos = self.bos[rows] & (self.lengths[self.document[rows]] > 1)
        assert not (bos[:, :-1] & self.bos[rows[:, 1:]]).any()

    def epochs(self, rows: np.ndarray) -> np.ndarray:
        """The own tokens in order, (epochs, own tokens); a last epoch that is not whole is left out."""
        flat = rows.ravel()
        own = flat[self.own[flat]]
        whole = len(own) // self.own.sum()
        return own[: whole * self.own.sum()].reshape(whole, -1)
