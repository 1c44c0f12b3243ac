"""What a trial says of its training is measured on this side: time, steps, parameters, memory, and the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.ledger.ledger import Trial
from mlx_autoresearch.sandbox.command import Outcome
from mlx_autoresearch.training.run import Run
from mlx_autoresearch.training.weights import digest
from mlx_autoresearch.trials import trial
from mlx_autoresearch.trials.clock import Clock
from mlx_autoresearch.trials.limits import Limits
from mlx_autoresearch.trials.trial import TrialFailed, run_trial
from tests.support.laboratory import make_repository, replace

ARRAYS = {"model.a": mx.ones((300, 1000)), "model.b": mx.zeros(8)}
SUMMARY = {"val_bpb": 2.0, "num_steps": -3, "training_seconds": 0.1, "peak_memory_mb": 700.0, "num_params_M": -5.0}


def trained(monkeypatch: pytest.MonkeyPatch, folder: Path, config: Config, **values: Any) -> Trial:
    """A trial of the installed code whose training is made up.

    values: of its clock (steps, weights, judged_seconds, pause), or of its summary.
    """

    def train(config: Config, run: Path, *_: object) -> tuple[Clock, Outcome]:
        made = Run.create_at(run, config, {"data": {}})
        mx.save_safetensors(str(run / "checkpoint.safetensors"), ARRAYS | {"optimizer.a": mx.ones(9)}, {"state": "{}"})
        made.save_summary(SUMMARY | {name: value for name, value in values.items() if name in SUMMARY})
        return clock, Outcome(0, "exit", "", 0, 1.0, 500.0)

    clock = Clock()
    clock.steps = values.get("steps", 6)
    clock.weights = values.get("weights", digest(ARRAYS))
    monkeypatch.setattr(Clock, "judged_seconds", values.get("judged_seconds", 1.0))
    monkeypatch.setattr(Clock, "pause", lambda *_: values.get("pause", 0.0))
    monkeypatch.setattr(trial, "_train", train)
    return run_trial(config, seed=1, folder=folder, code=None, limits=Limits())


def test_steps_tokens_and_parameters_are_counted_here(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A negative number of parameters used to stand in the ledger."""
    result = trained(monkeypatch, tmp_path / "run", tiny)
    assert (result.steps, result.tokens, result.num_params_M) == (6, 6 * 256, 300_008 / 1e6)
    assert result.training_seconds == 0
    written = json.loads((tmp_path / "run/summary.json").read_text())
    assert (written["num_steps"], written["num_params_M"]) == (6, 300_008 / 1e6)
    assert written["total_tokens_M"] == 6 * 256 / 1e6


@pytest.mark.parametrize(("told", "expected"), [(700.0, 700.0), (0.1, 500.0), (-1.0, 500.0), (1e9, 1e9)])
def test_less_memory_than_the_checkpoint_takes_is_not_believed(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: float, expected: float
) -> None:
    assert trained(monkeypatch, tmp_path / "run", tiny, peak_memory_mb=told).peak_memory_mb == expected


@pytest.mark.parametrize(
    ("train", "values", "failure"),
    [
        ({"max_steps": 6}, {"steps": 7}, "budget: trained 7 steps where 6 are allowed"),
        ({"time_budget": 2.0}, {"judged_seconds": 8.9}, "budget: trained for 8.9 s where 2 s are allowed"),
        ({"time_budget": 2.0}, {"steps": 1}, "budget: no step but the first fitted into 2 s"),
        ({"time_budget": 2.0}, {"pause": 6.0, "judged_seconds": 8.9}, "pause: the machine stood still for 6.0 s"),
        ({"max_steps": 6}, {"weights": None}, "guard: the checkpoint does not hold the weights"),
        ({"max_steps": 6}, {"weights": "0" * 64}, "guard: the checkpoint does not hold the weights"),
    ],
)  # fmt: skip
def test_settings_alone_may_not_train_for_longer_either(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: dict, values: dict, failure: str
) -> None:
    """The budget of the installed code used to be left to itself: 8.9 s where 2 were allowed."""
    config = replace(tiny, train=replace(tiny.train, **{"max_steps": None} | train))
    with pytest.raises(TrialFailed, match=failure):
        trained(monkeypatch, tmp_path / "run", config, **values)


def test_a_pause_that_the_budget_bears_is_taken_the_second_time(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(tiny, train=replace(tiny.train, max_steps=None, time_budget=30.0))
    assert trained(monkeypatch, tmp_path / "run", config, pause=6.0, judged_seconds=30.0).steps == 6


TRAINS_IN_PARAMETERS = """
_parameters = GPT.parameters
GPT.parameters = lambda self: (self.lm_head.update({"weight": self.lm_head.weight * 0.9}), _parameters(self))[1]
"""
GREEDY = """    def step(batches: Iterator) -> mx.array:
        return [_step(batches) for _ in range(3)][-1]

    def _step(batches: Iterator) -> mx.array:
"""


def test_weights_that_change_after_the_last_step_are_refused(tiny: Config, tmp_path: Path) -> None:
    """300 steps inside `parameters()`, which the checkpoint calls, used to be free."""
    code = make_repository(tmp_path / "code")
    model = code / "src/mlx_autoresearch/recipe/model.py"
    model.write_text(model.read_text() + TRAINS_IN_PARAMETERS)
    with pytest.raises(TrialFailed, match="guard: the checkpoint does not hold the weights that the last step left"):
        run_trial(tiny, seed=1, folder=tmp_path / "run", code=code, limits=Limits())


def test_a_step_gets_no_more_batches_than_it_needs(tiny: Config, tmp_path: Path) -> None:
    code = make_repository(tmp_path / "code")
    step = code / "src/mlx_autoresearch/recipe/step.py"
    step.write_text(step.read_text().replace("    def step(batches: Iterator) -> mx.array:\n", GREEDY))
    with pytest.raises(TrialFailed, match="setup: the recipe's step asked for more than its 2 micro-batches"):
        run_trial(tiny, seed=1, folder=tmp_path / "run", code=code, limits=Limits())
