"""Whole nights on the simulated machine of scripts/simulate_nights.py, and single decisions on it."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.ledger.ledger import Record, Trial
from mlx_autoresearch.ledger.standing import earned_of
from mlx_autoresearch.research.champion import Champion
from mlx_autoresearch.research.comparison import Comparison
from mlx_autoresearch.research.turns import more_done, same_cost
from mlx_autoresearch.trials.trial import TrialFailed
from tests.support.records import TRIAL, record

nights = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "simulate_nights.py"))
Idea, Machine = nights["Idea"], nights["Machine"]


@pytest.fixture(autouse=True)
def simulated() -> Iterator[None]:
    with nights["simulated"](before=False):
        yield


class Bench:
    """One search on a machine whose noise and speed the test decides."""

    def __init__(self, home: Path, *, noise: float = 0.3):
        self.machine = Machine("test")
        self.search = nights["Simulated"](home, self.machine)
        self.ideas = nights["Ideas"]("test")
        self.speed: Callable[[float, int], float] = lambda key, seed: 1.0  # by the configuration, 0.0 for the start
        self.luck: Callable[[float, int], float] = lambda key, seed: 0.0  # standard deviations, by seed
        self.noise, self.ran = noise, list[tuple[float, int]]()
        self.search.run_trial = self.train
        self.champion = Champion(self.search, nights["Quiet"]())
        self.champion.measure_baseline()

    def train(self, config: Config, *, seed: int, folder: Path, **given: Any) -> Trial:
        key = config.optimizer.matrix_lr
        self.ran.append((key, seed))
        self.machine.busy, self.machine.speed = False, 1.0
        self.machine.rng.seed(f"{key} {seed}")
        trial = self.machine.train(config, seed=seed, folder=folder, **given)
        speed, model = self.speed(key, seed), self.machine.models[key]
        noise = self.noise * ((seed * 7919) % 5 - 2) + self.luck(key, seed)
        bpb = 2.0 + 0.01 * (model.level + noise) - 0.5 * (speed - 1)
        self.machine.runs[folder.name + folder.parent.name] = bpb
        return replace(trial, val_bpb=bpb + 0.01 * model.on_val, steps=round(150 * speed / model.cost) + seed % 3)

    def tries(self, effect: float, **idea: Any) -> Record:
        """Refresh the best, then one experiment with this true effect."""
        self.champion.refresh()
        self.ideas.propose = lambda context: self.proposed(Idea(effect, **idea))
        made = nights["Tried"](self.search, self.champion, self.ideas, self.machine).conduct({})
        assert made is not None
        return made

    def proposed(self, idea: Any) -> Any:
        self.ideas.last = idea
        return nights["Proposal"]("an idea", "other")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setitem(nights["Tried"]._commit_proposal.__globals__, "_TEXT", 0.0)
    return Bench(tmp_path)


def test_of_ideas_without_a_gain_few_are_kept_in_whole_nights():
    now = nights["simulate"](5, 60, before=False)
    assert now.worthless() < 0.03
    assert now.kept[(2.0, 3.0)] > 0.2 * now.tried[(2.0, 3.0)]
    assert now.tried["cheat"] > 5


def test_the_rules_before_keep_more_of_them():
    before = nights["simulate"](3, 60, before=True)
    assert before.worthless() > 0.03
    assert before.share("cheat") > 0.3


def test_a_gain_that_a_quieter_machine_explains_is_measured_in_turns_and_not_kept(bench: Bench):
    first = bench.search.config.seeds.window(0)
    bench.speed = lambda key, seed: 1.5 if key and seed in first else 1.0  # quiet, until runs are made in turns
    made = bench.tries(0.0)
    assert made.status == "discard"
    assert made.reason.startswith("in turns with the best:")
    turns = [(key, seed) for key, seed in bench.ran if seed not in first]
    assert [key for key, _ in turns] == [0.001, 0.0] * (len(turns) // 2)
    assert [seed for _, seed in turns[::2]] == [seed for _, seed in turns[1::2]]


def test_a_machine_that_favours_the_candidate_in_turns_too_convinces_nobody(bench: Bench):
    bench.speed = lambda key, seed: 1.5 if key else 1.0
    made = bench.tries(0.0)
    assert (made.status, "not steady" in made.reason) == ("discard", True)


def test_a_true_gain_at_the_same_cost_and_speed_is_kept_without_runs_in_turns(bench: Bench):
    made = bench.tries(-6.0)
    assert made.status == "keep"
    assert "in turns" not in made.reason
    assert made.confirmed


def test_a_gain_of_a_cheaper_step_is_measured_in_turns_and_kept(bench: Bench):
    made = bench.tries(-6.0, cost=0.5)
    assert made.status == "keep"
    assert "in turns with the best" in made.reason
    windows = {bench.search.config.seeds.window_of(t.seed) for t in made.trials}
    assert len(windows) == 2


def test_a_cheat_that_has_the_validation_text_is_rejected(bench: Bench):
    made = bench.tries(0.0, cheat=-30.0)
    assert (made.status, made.confirmed) == ("rejected", False)
    assert bench.champion.record.number == 0


def test_a_best_that_later_measurements_expose_is_demoted_and_does_not_come_back(bench: Bench):
    window = bench.search.config.seeds.window_of
    bench.tries(-8.0)
    bench.luck = lambda key, seed: -10.0 if key == 0.002 and window(seed) <= 1 else 0.0
    assert bench.tries(0.0).status == "keep"  # by luck that its first seeds have
    best = bench.search.best.number
    bench.luck = lambda key, seed: 0.0
    made = bench.tries(5.0)
    demoted = [r for r in bench.search.ledger.records() if r.event == "demote"]
    assert best == 2 and [r.number for r in demoted] == [2]
    assert demoted[0].reason.startswith("no longer the best: in turns with experiment 1 at new seeds, ")
    assert bench.search.best.number == 1
    assert bench.search.workspace.best == made.parent == "1"
    assert bench.champion.candidate.commit == "1"
    for _ in range(25):
        bench.tries(5.0)
    assert sum(r.event == "demote" for r in bench.search.ledger.records()) == 1  # and experiment 1 stays


@pytest.mark.parametrize("kind", ["exception", "nan", "timeout"])
@pytest.mark.parametrize("works", [0, 1], ids=["at once", "in turns"])
def test_a_best_that_fails_when_it_is_measured_again_is_demoted(bench: Bench, kind: str, works: int):
    """It shows its gain where it is judged, knows its seeds, and fails at all others, or where runs are in turns."""
    window = bench.search.config.seeds.window_of
    if works:
        bench.luck = lambda key, seed: -10.0 if window(seed) == 0 else 0.0
    train = bench.search.run_trial

    def fails(config: Config, *, seed: int, **given: Any) -> Trial:
        if config.optimizer.matrix_lr == 0.001 and window(seed) > works:
            raise TrialFailed(kind, "not with this seed")
        return train(config, seed=seed, **given)

    bench.search.run_trial = fails
    assert bench.tries(-8.0 if not works else 0.0).status == "keep"
    bench.tries(5.0)
    (demoted,) = [r for r in bench.search.ledger.records() if r.event == "demote"]
    assert demoted.number == 1
    assert demoted.reason == f"no longer the best: it fails when it is measured again: {kind}: not with this seed"
    assert bench.search.best.number == 0 and bench.champion.candidate.commit == bench.champion.record.commit


@pytest.mark.parametrize("kind", ["gpu", "pause", "disk"])
def test_a_best_is_not_demoted_for_what_is_the_machines_fault(bench: Bench, kind: str):
    train = bench.search.run_trial

    def fails(config: Config, *, seed: int, **given: Any) -> Trial:
        if config.optimizer.matrix_lr == 0.001 and bench.search.config.seeds.window_of(seed) > 0:
            raise TrialFailed(kind, "not now")
        return train(config, seed=seed, **given)

    bench.search.run_trial = fails
    assert bench.tries(-8.0).status == "keep"
    bench.tries(5.0)
    assert bench.search.best.number == 1


def test_a_best_that_fails_once_stays(bench: Bench):
    train, failed = bench.search.run_trial, list[int]()

    def fails(config: Config, *, seed: int, **given: Any) -> Trial:
        if config.optimizer.matrix_lr == 0.001 and bench.search.config.seeds.window_of(seed) > 0 and not failed:
            failed.append(seed)
            raise TrialFailed("exception", "once")
        return train(config, seed=seed, **given)

    bench.search.run_trial = fails
    assert bench.tries(-8.0).status == "keep"
    bench.tries(5.0)
    assert failed and bench.search.best.number == 1
    assert bench.champion.trials(), "at the next seed it has a fresh value"


def test_the_champion_is_who_the_ledger_says_where_git_fails_at_a_demotion(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = bench.search.config.seeds.window_of
    bench.tries(-8.0)
    bench.luck = lambda key, seed: -10.0 if key == 0.002 and window(seed) <= 1 else 0.0
    assert bench.tries(0.0).status == "keep"  # by luck that its first seeds have
    bench.luck = lambda key, seed: 0.0

    def fails(commit: str) -> None:
        raise RuntimeError("git failed")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(bench.search.workspace, "keep", fails)
        bench.champion.refresh()
    assert bench.champion.record.number == 1
    assert bench.champion.candidate.commit == bench.champion.record.commit


def test_demotions_go_back_as_far_as_they_must(bench: Bench):
    """Experiment 1 had luck in two windows, so its first fresh values speak for it; experiment 2 had more, in one."""
    window = bench.search.config.seeds.window_of
    bench.luck = lambda key, seed: {0.001: -4.0, 0.002: -12.0}.get(key, 0.0) if window(seed) <= 1 else 0.0
    assert [bench.tries(1.0).status for _ in range(2)] == ["keep", "keep"]
    for _ in range(65):
        bench.tries(9.0)
    assert [r.number for r in bench.search.ledger.records() if r.event == "demote"] == [2, 1]
    assert bench.search.best.number == 0
    assert bench.search.workspace.best == bench.search.best.commit


def test_a_true_best_stays(bench: Bench):
    bench.tries(-8.0)
    for _ in range(45):
        bench.tries(9.0)
    assert bench.search.best.number == 1
    assert not [r for r in bench.search.ledger.records() if r.event == "demote"]


@pytest.fixture
def simplifying(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Every change has a little less code, too."""
    monkeypatch.setattr(bench.search.workspace, "has_less_code", lambda *_: True)
    return bench


def code_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(self: Any) -> Any:
        self._overrides = {}
        return self._simulated.candidates[self._commit]

    monkeypatch.setattr(nights["Tried"], "_check", check)
    monkeypatch.setattr(Comparison, "_may_be_the_machines", lambda self: False)


def test_settings_that_change_in_passing_are_no_simplification(simplifying: Bench):
    assert [simplifying.tries(0.0).status for _ in range(4)] == ["discard"] * 4


def test_simplifications_do_not_drift_away_from_what_was_earned(simplifying: Bench, monkeypatch: pytest.MonkeyPatch):
    """Each deletes something and makes the result a tenth of a standard deviation worse, which is equal each time."""
    code_only(monkeypatch)
    bench = simplifying
    assert bench.tries(-8.0).status == "keep"
    made = [bench.tries(0.05) for _ in range(25)]
    kept = [r for r in made if r.status == "keep"]
    assert kept and all(r.simpler for r in kept)
    earned = earned_of(bench.search.ledger.records())
    assert earned is not None and earned.number == 1
    level = bench.machine.models[bench.champion.candidate.config.optimizer.matrix_lr].level
    noise = bench.champion.noise().sd / 0.01
    assert -8.0 <= level < -8.0 + 1.5 * noise  # the margin, once, not once for each
    assert any("not to the last experiment that was kept for a gain" in r.reason for r in made)


def test_what_costs_the_same():
    assert same_cost(["optimizer.matrix_lr", "train.warmup_ratio"], code_changed=False)
    assert not same_cost(["optimizer.matrix_lr"], code_changed=True)
    assert not same_cost(["model.mlp"], code_changed=False)
    assert not same_cost(["recipe.z_loss"], code_changed=False)
    for key in ("optimizer.ns_steps", "train.total_batch_size", "train.compute_dtype"):
        assert not same_cost([key], code_changed=False)


def test_steps_are_compared_with_their_own_scatter():
    from mlx_autoresearch.ledger.seeds import Seeds

    def trials(*steps: int) -> list[Trial]:
        return [replace(TRIAL, seed=42 + i, steps=n) for i, n in enumerate(steps)]

    baseline = replace(record(0, {42: 2.0}, status="keep"), trials=trials(100, 104, 98, 101))
    best = baseline.trials
    assert more_done(trials(169, 206), best, [baseline], Seeds())  # what a search kept, against 101 to 136
    assert not more_done(trials(103, 104), best, [baseline], Seeds())
    assert not more_done(trials(60, 50), best, [baseline], Seeds())
    steady = replace(baseline, trials=trials(100, 100, 100, 100))
    assert not more_done(trials(101), steady.trials, [steady], Seeds())  # one step is nothing
    assert more_done(trials(110), steady.trials, [steady], Seeds())
