from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from mlx_autoresearch.metric.rows import pack, sample, scorable

BOS = 0
LENGTHS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "short": lambda rng, n: rng.integers(1, 5, n),
    "typical": lambda rng, n: rng.lognormal(3, 1, n).astype(int) + 2,
    "equal": lambda rng, n: np.full(n, 17),
    "longer_than_any_row": lambda rng, n: rng.integers(300, 400, n),
    "one_giant": lambda rng, n: np.where(np.arange(n) == n // 2, 20_000, 9),
}


def corpus(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Documents of distinct tokens behind their BOS: a row shows what it was made of."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = np.arange(1, offsets[-1] + 1)
    tokens[offsets[:-1]] = BOS
    return tokens, offsets


@pytest.mark.parametrize("documents", [1, 2, 3, 10, 270, 5000])
@pytest.mark.parametrize("kind", LENGTHS)
def test_every_token_but_bos_is_scored_once(kind: str, documents: int) -> None:
    tokens, offsets = corpus(LENGTHS[kind](np.random.default_rng(documents), documents))
    for sequence_len in (1, 2, 3, 64, 512) if documents < 100 else (64,):
        rows = list(pack(tokens, offsets, sample(offsets, 10**9), sequence_len=sequence_len))
        scored = np.concatenate([row.tokens[1:][row.scored] for row in rows])
        assert np.array_equal(np.sort(scored), tokens[tokens != BOS])
        assert all(row.tokens.shape == (sequence_len + 1,) and row.tokens.dtype == np.int32 for row in rows)
        for row in rows:  # a scored token follows the one before it in its document, or a BOS
            before, token = row.tokens[:-1][row.scored], row.tokens[1:][row.scored]
            assert np.all((before == token - 1) | (before == BOS))
            assert row.tokens[0] == BOS


@pytest.mark.parametrize("kind", LENGTHS)
def test_only_the_last_row_is_padded(kind: str) -> None:
    """Elsewhere a place that is not scored begins a document, or is the last of its row."""
    tokens, offsets = corpus(np.maximum(LENGTHS[kind](np.random.default_rng(3), 400), 2))
    *rows, _ = pack(tokens, offsets, sample(offsets, 10**9), sequence_len=64)
    assert not any((~row.scored[:-1] & ~row.scored[1:]).any() for row in rows)


def test_documents_stay_whole_while_they_fit() -> None:
    tokens, offsets = corpus(np.array([5, 3, 9, 6, 4, 3]))
    rows = [row.tokens.tolist() for row in pack(tokens, offsets, np.arange(6), sequence_len=9)]
    documents = [tokens[a:b].tolist() for a, b in pairwise(offsets)]
    assert rows[0] == documents[2] + [BOS]  # the longest; the place left can score nothing
    assert rows[1] == documents[3] + documents[4]
    assert rows[2] == documents[0] + documents[1] + documents[5][:2]  # split to fill the row
    assert rows[3] == [BOS, documents[5][2]] + [BOS] * 8


def test_a_sample_is_of_whole_documents_spread_over_the_split() -> None:
    _, offsets = corpus(np.random.default_rng(0).integers(2, 60, 4000))
    for asked in (500, 5_000, 50_000):
        chosen = sample(offsets, asked)
        assert 0.9 * asked <= scorable(offsets)[chosen].sum() <= asked
        assert len(set(chosen.tolist())) == len(chosen)
        for part in np.array_split(np.arange(4000), 4):  # each quarter has its share of them
            assert abs(np.isin(part, chosen).sum() - len(chosen) / 4) <= 2 + 0.1 * len(chosen)


def test_a_larger_sample_holds_most_of_a_smaller_one() -> None:
    _, offsets = corpus(np.random.default_rng(1).integers(2, 60, 1000))
    small, large = (set(sample(offsets, n).tolist()) for n in (2_000, 10_000))
    assert len(small & large) >= 0.9 * len(small)


@pytest.mark.parametrize(
    ("lengths", "asked", "chosen"),
    [
        ([10, 10, 10], 27, [0, 1, 2]),  # 9 tokens each, besides BOS
        ([10, 10, 10], 26, [0, 2]),
        ([100, 10, 100], 20, [1]),  # those too long are passed over
        ([100, 90, 95], 20, [1]),  # all are: the shortest
        ([1, 1, 5], 100, [2]),  # a BOS alone is nothing to score
        ([1, 7, 5], 3, [2]),
        ([1, 1], 5, []),
        ([1, 1, 1], 0, []),
    ],
)
def test_which_documents_are_taken(lengths: list[int], asked: int, chosen: list[int]) -> None:
    assert sample(corpus(np.array(lengths))[1], asked).tolist() == chosen


def test_one_long_document_takes_time_in_proportion_to_its_length() -> None:
    tokens, offsets = corpus(np.array([3_000_000]))
    assert sum(1 for _ in pack(tokens, offsets, sample(offsets, 10), sequence_len=64)) == -(-2_999_999 // 64)
