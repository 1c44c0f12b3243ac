"""The machine stands still in the middle of a training by time: the trial is repeated once, and that is said."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from mlx_autoresearch.config.load import with_settings
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.ledger.ledger import Trial
from mlx_autoresearch.sandbox.environment import clean_environment
from mlx_autoresearch.trials import trial as trials
from mlx_autoresearch.trials.clock import Event
from mlx_autoresearch.trials.limits import Limits
from mlx_autoresearch.trials.trial import TrialFailed, run_trial, status_of

# In every process that is started: the fifth step takes three seconds more, as often as the file has letters.
PAUSES = """
import os, time
from pathlib import Path
from mlx_autoresearch.recipe import interface
left = Path(os.environ["PAUSES"])
make_step = interface.make_step
def made(*arguments):
    step, calls = make_step(*arguments), []
    def paused(pairs):
        calls.append(1)
        if len(calls) == 5 and left.read_text():
            left.write_text(left.read_text()[1:])
            time.sleep(3)
        return step(pairs)
    return paused
interface.make_step = made
"""


@pytest.mark.parametrize("pauses", [1, 2])
def test_a_trial_in_which_the_machine_stood_still_is_repeated_once(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: int
) -> None:
    """It used to be an ordinary result, of a third of the steps. A second pause is taken as it comes."""
    left = tmp_path / "left"
    left.write_text("x" * pauses)
    (tmp_path / "sitecustomize.py").write_text(PAUSES)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setattr(
        "mlx_autoresearch.trials.trial.trial_environment",
        lambda scratch, **_: clean_environment(
            scratch,
            Path(tempfile.gettempdir()),
            PYTHONPATH=path,
            PAUSES=str(left),
            MLX_AUTORESEARCH_CACHE=os.environ["MLX_AUTORESEARCH_CACHE"],
        ),
    )
    config = with_settings(tiny, {"train.max_steps": None, "train.time_budget": 4.0}, "the test")
    events: list[Event] = []
    trial = run_trial(config, seed=1, folder=tmp_path / "run", code=None, limits=Limits(), say=events.append)
    (again,) = [event["message"] for event in events if event["event"] == "again"]
    assert again.startswith("the machine stood still for ") and again.endswith("; this trial is repeated")
    assert left.read_text() == "" and trial.steps >= 5


class Standing:
    """In the place of Standstill: as many attempts as are given stood still."""

    left = 0

    def __enter__(self) -> Standing:
        self.seconds = 2.0 if Standing.left > 0 else 0.0
        Standing.left -= 1
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize("kind", ["timeout", "budget", "metric", "guard", "exception"])
@pytest.mark.parametrize(("still", "attempts"), [(0, 1), (1, 2), (9, 4)])
def test_whatever_a_trial_fails_by_while_the_machine_stands_still_is_not_its_fault(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, still: int, attempts: int
) -> None:
    calls: list[bool] = []

    def once(*_: object, **__: object) -> Trial:
        calls.append(True)
        raise TrialFailed(kind, "too long")

    Standing.left = still
    monkeypatch.setattr(trials, "Standstill", Standing)
    monkeypatch.setattr(trials, "_run_once", once)
    with pytest.raises(TrialFailed) as failure:
        run_trial(tiny, seed=1, folder=tmp_path / "run", code=None, limits=Limits())
    assert len(calls) == attempts
    assert failure.value.kind == ("pause" if still == 9 else kind)
    assert still != 9 or failure.value.detail == f"the machine stood still for 2.0 s ({kind}: too long)"
    assert status_of("pause") == "crash"
