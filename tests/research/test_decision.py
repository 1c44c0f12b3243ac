"""The statistics of keep or discard: known quantiles, known error rates, whole synthetic nights."""

from __future__ import annotations

import math
import random
import runpy
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist, fmean
from typing import Any

import numpy as np
import pytest

from mlx_autoresearch.ledger.noise import Noise
from mlx_autoresearch.ledger.seeds import Seeds
from mlx_autoresearch.research.decision import Discard, Judge, Keep, MoreSeeds, pocock_level, t_cdf, t_quantile
from mlx_autoresearch.research.settings import Decision


def judging(noise: Noise, **decision: Any) -> Judge:
    """A judge with the settings that a search has by default, but for those of its section `decision` given here."""
    return Judge(noise, Seeds().most, **Decision(**decision).model_dump())


def judge(sd: float = 0.01, df: int = 12, **decision: Any) -> Judge:
    return judging(Noise(sd, df), **decision)


simulation = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "decisions.py"))


@pytest.mark.parametrize(
    ("p", "df", "t"),
    [  # any statistics textbook's table
        (0.975, 1, 12.7062),
        (0.975, 2, 4.30265),
        (0.95, 3, 2.35336),
        (0.975, 4, 2.77645),
        (0.99, 5, 3.36493),
        (0.995, 10, 3.16927),
        (0.95, 12, 1.78229),
        (0.975, 30, 2.04227),
        (0.975, 1000, 1.96234),
        (0.5, 7, 0.0),
    ],
)
def test_quantiles_of_students_t_are_the_tables(p: float, df: int, t: float):
    assert t_quantile(p, df) == pytest.approx(t, abs=5e-5)


def test_the_distribution_of_t_is_symmetric_and_nears_the_normal():
    for df in (1, 2, 5, 8):
        assert t_cdf(-1.3, df) == pytest.approx(1 - t_cdf(1.3, df), abs=1e-14)
    assert t_cdf(1.3, 100_000) == pytest.approx(NormalDist().cdf(1.3), abs=1e-5)


@pytest.mark.parametrize(
    ("rate", "looks", "z"),  # Jennison and Turnbull, Group Sequential Methods (2000), table 2.1, halved levels
    [(0.025, 2, 2.178), (0.025, 4, 2.361), (0.025, 5, 2.413), (0.05, 2, 1.875), (0.05, 4, 2.067), (0.05, 1, 1.645)],
)
def test_boundaries_of_repeated_looks_are_pococks(rate: float, looks: int, z: float):
    assert -NormalDist().inv_cdf(pocock_level(rate, looks)) == pytest.approx(z, abs=1e-3)


# Of a search with 10 seconds a run: during the third run of the second group something else took the machine.
DISTURBED = [
    [2.9406, 2.8987, 2.9171, 2.9642],
    [2.736, 2.7271, 3.0054],
    [2.6661, 2.7111, 2.7626],
    [2.773, 2.7316, 2.751, 2.7365],
]


def test_a_clear_gain_is_kept_although_a_run_of_the_best_was_disturbed():
    noise = Noise.pooled(DISTURBED)
    halved = [2.638, 2.6208, 2.6033, 2.5929]  # half the layers
    assert isinstance(judging(noise).next(halved[:2], DISTURBED[-1]), Keep)
    assert isinstance(judging(noise).next([2.70, 2.70], [2.73, 2.74, 3.3]), MoreSeeds)  # and 3.3 helps no candidate


def test_a_candidates_own_bad_run_counts():
    assert isinstance(judge().next([1.95, 2.4], [2.0, 2.0, 2.0, 2.0]), Discard)


def test_a_large_gain_is_kept_after_one_seed():
    action = judge().next([1.9], [2.0, 2.01])
    assert isinstance(action, Keep)
    assert "0.1050 better over 1 seed" in action.reason


def test_an_obvious_loser_is_discarded_after_one_seed():
    assert isinstance(judge().next([2.05], [2.0, 2.01]), Discard)


def test_a_near_miss_gets_seeds_up_to_the_limit_and_no_further():
    best = [2.0, 2.0, 2.0, 2.0]
    candidate = [1.985]
    while isinstance(action := judge().next(candidate, best), MoreSeeds):
        assert action.n == 1
        candidate.append(1.989)
    assert isinstance(action, Discard)
    assert len(candidate) == 4


def test_few_degrees_of_freedom_ask_for_more():
    assert judge(df=3).threshold(1, 1) > 1.5 * judge(df=12).threshold(1, 1)
    assert judge().threshold(1, 4) < judge().threshold(1, 1)


def test_without_noise_any_improvement_is_kept_and_nothing_else():
    assert isinstance(judge(sd=0.0).next([1.0], [1.1]), Keep)
    assert isinstance(replace(judge(sd=0.0), max_seeds=1).next([1.1], [1.1]), Discard)


def test_equal_with_less_code_is_kept_but_clearly_worse_is_not():
    best, equal = [2.0, 2.01, 1.99, 2.0], [2.001, 2.01, 1.989, 2.0]
    assert isinstance(judge().next(equal, best, simpler=True), Keep)
    assert isinstance(judge().next(equal, best, simpler=False), Discard)
    assert isinstance(judge().next([v + 0.02 for v in equal], best, simpler=True), Discard)
    assert isinstance(judge().next([2.03], best, simpler=True), Discard)


def test_a_simplification_is_not_kept_before_the_last_seed():
    assert isinstance(judge().next([2.0], [2.0, 2.0, 2.0, 2.0], simpler=True), MoreSeeds)


def test_greedy_keeps_any_improvement_at_the_first_seed():
    greedy = judge(greedy=True)
    assert isinstance(greedy.next([1.9999], [2.0, 1.0]), Keep)
    assert isinstance(greedy.next([2.0], [2.0]), Discard)
    assert isinstance(greedy.next([2.0], [2.0], simpler=True), Keep)
    assert isinstance(greedy.next([2.0001], [2.0], simpler=True), Discard)


@pytest.mark.parametrize(("candidate", "best"), [([], [1.0]), ([1.0, 1.0], [1.0]), ([math.nan], [1.0])])
def test_what_cannot_be_judged_is_refused(candidate: list[float], best: list[float]):
    with pytest.raises(ValueError, match=r"\[Judge.next\] expected"):
        judge().next(candidate, best)


def error_rate(worse: float, *, simpler: bool, df: int, experiments: int, seed: int) -> float:
    """How often a candidate is kept that is truly `worse` standard deviations worse than a freshly measured best."""
    rng = np.random.default_rng(seed)
    kept = 0
    for _ in range(experiments):
        judge = judging(Noise(float(np.sqrt(rng.chisquare(df) / df)), df))
        candidate, best = rng.standard_normal(4) + worse, rng.standard_normal(4)
        n = 1
        while isinstance(action := judge.next(list(candidate[:n]), list(best[: max(n, 2)]), simpler), MoreSeeds):
            n += action.n
        kept += isinstance(action, Keep)
    return kept / experiments


@pytest.mark.parametrize("df", [3, 12])
def test_no_more_than_one_null_candidate_in_twenty_is_kept_all_looks_together(df: int):
    rate = error_rate(0.0, simpler=False, df=df, experiments=6000, seed=df)
    assert 0.015 < rate < 0.05  # and it is not bought by never keeping anything


def test_no_more_than_one_simplification_in_twenty_that_is_worse_by_the_margin_is_kept():
    assert error_rate(1.5, simpler=True, df=12, experiments=4000, seed=1) < 0.05
    assert error_rate(0.0, simpler=True, df=12, experiments=1000, seed=2) > 0.4


def test_whole_nights_keep_few_nulls_where_the_greedy_rule_keeps_many():
    world = simulation["World"](sigma=0.02)
    ours = simulation["simulate"](world, 25)
    greedy = simulation["simulate"](world, 25, greedy=True)
    assert ours.nulls > 1000
    assert ours.false_keeps / ours.nulls < 0.05 < greedy.false_keeps / greedy.nulls
    assert ours.losers_kept < greedy.losers_kept
    assert ours.runs / ours.experiments < 2.5
    assert ours.large_missed / ours.large < 0.15
    assert abs(fmean(ours.believed) - fmean(ours.progress)) < 0.01


@pytest.mark.parametrize("name", ["heavy tails", "disturbed runs", "noise rises with keeps", "nothing ever helps"])
def test_whole_nights_keep_few_nulls_where_the_assumptions_do_not_hold(name: str):
    tally = simulation["simulate"](simulation["WORLDS"][name], 15)
    assert tally.false_keeps / tally.nulls < 0.05


def test_a_lucky_best_makes_a_keep_harder_never_easier():
    rng = random.Random(0)
    kept = {False: 0, True: 0}
    for _ in range(3000):
        draws = [rng.gauss(0, 1) for _ in range(10)]
        for selected in (False, True):
            best = [min(draws[:5]) if selected else draws[0]]
            kept[selected] += isinstance(judge(1.0).next([draws[9]], best), Keep)
    assert kept[True] < 0.2 * kept[False]
