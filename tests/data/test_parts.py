from __future__ import annotations

import numpy as np
import pytest

from mlx_autoresearch.data.parts import HELD_OUT, divide


@pytest.mark.parametrize("seed", range(3))
def test_half_the_text_validates_and_a_quarter_each_confirms_and_is_held_back(seed: int) -> None:
    lengths = np.random.default_rng(seed).lognormal(6, 1, 500).astype(int) + 2
    tokens = np.bincount(divide(lengths), lengths)
    assert tokens / lengths.sum() == pytest.approx([0.5, 0.25, 0.25], abs=0.02)


def test_each_part_is_spread_over_the_text() -> None:
    parts = divide(np.full(400, 10))
    for quarter in np.split(parts, 4):
        assert np.bincount(quarter).tolist() == [50, 25, 25]


def test_the_first_document_validates() -> None:
    assert [divide(np.full(n, 7)).tolist() for n in (1, 2, 3)] == [[0], [0, 1], [0, 1, 2]]
    assert HELD_OUT[0] == "val"


def test_one_large_document_does_not_starve_the_others() -> None:
    assert set(divide(np.array([10_000, 5, 5, 5, 5])).tolist()) == {0, 1, 2}
