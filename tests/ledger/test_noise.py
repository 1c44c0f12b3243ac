"""The noise of one run, from groups of values and from a ledger's records."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from statistics import fmean, variance

import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.ledger.noise import Noise
from mlx_autoresearch.ledger.seeds import Seeds
from tests.support.records import TRIAL, record

# Of a search with 10 seconds a run: during the third run of the second group something else took the machine.
DISTURBED = [
    [2.9406, 2.8987, 2.9171, 2.9642],
    [2.736, 2.7271, 3.0054],
    [2.6661, 2.7111, 2.7626],
    [2.773, 2.7316, 2.751, 2.7365],
]


def test_pooled_noise_weighs_groups_by_their_degrees_of_freedom():
    noise = Noise.pooled([[1.0, 1.2], [5.0], [2.0, 2.1, 2.3]])
    assert noise.df == 3
    assert noise.sd == pytest.approx(math.sqrt((variance([1.0, 1.2]) + 2 * variance([2.0, 2.1, 2.3])) / 3))


def test_noise_forgets_what_is_long_ago():
    recent = [[1.0 + 0.001 * i for i in range(4)]] * 4
    assert Noise.pooled([[1.0, 9.0], *recent]) == Noise.pooled(recent)


def test_a_disturbed_run_is_no_noise():
    clean = [group[:2] if group[-1] == 3.0054 else group for group in DISTURBED]
    assert Noise.pooled(DISTURBED) == Noise.pooled(clean)
    assert Noise.pooled(DISTURBED).sd < 0.035


def test_undisturbed_noise_is_all_counted():
    rng = random.Random(0)
    groups = [[rng.gauss(0, 1) for _ in range(3)] for _ in range(500)]
    estimates = [Noise.pooled(groups[i : i + 6]) for i in range(0, 498, 6)]
    assert all(noise.df == 12 for noise in estimates)
    assert fmean(noise.sd**2 for noise in estimates) == pytest.approx(1.0, abs=0.1)


def test_noise_needs_a_repeated_configuration():
    with pytest.raises(ValueError, match=r"\[Noise.pooled\] expected"):
        Noise.pooled([[1.0], [2.0]])


def test_discarded_experiments_are_no_sample_of_the_noise() -> None:
    kept = [record(0, {42: 2.0, 43: 2.01}), record(1, {46: 1.9, 47: 1.92})]
    unstable = record(2, {46: 2.0, 47: 3.0}, status="discard")
    assert Noise.of([*kept, unstable], Seeds()) == Noise.of(kept, Seeds()) == Noise.pooled([[2.0, 2.01], [1.9, 1.92]])


def test_a_seed_that_was_measured_later_belongs_to_its_window() -> None:
    again = record(1, {46: 1.9, 47: 1.92}, event="remeasure")
    extended, next_window = (
        replace(again, trials=[replace(TRIAL, seed=48, val_bpb=1.91)]),
        record(1, {50: 5.0, 51: 5.01}),
    )
    records = [again, extended, replace(next_window, event="remeasure")]
    assert Noise.of(records, Seeds()) == Noise.pooled([[1.9, 1.92, 1.91], [5.0, 5.01]])


def test_a_record_of_a_sweep_is_a_group_of_its_own() -> None:
    records = [record(0, {1: 2.0, 900: 2.1}, event="experiment"), record(1, {1: 1.0, 900: 1.3})]
    assert Noise.of(records, None) == Noise.pooled([[2.0, 2.1], [1.0, 1.3]])


def test_where_nothing_was_measured_twice_there_is_no_estimate() -> None:
    assert Noise.of([], Seeds()) is None
    assert Noise.of([record(0, {42: 2.0}), record(1, {42: 2.0, 43: 9.0}, status="discard")], Seeds()) is None


def test_seeds_are_those_of_the_homes_settings(tmp_path: Path) -> None:
    assert Seeds.of(tmp_path) is None
    (tmp_path / "research.yaml").write_text("tag: t\nseeds: {first: 7, most: 9}\n")
    assert Seeds.of(tmp_path) == Seeds(first=7, most=9)
    (tmp_path / "research.yaml").write_text("seeds: {first: many}\n")
    with pytest.raises(UserError, match=r"research\.yaml: seeds: first must be"):
        Seeds.of(tmp_path)
