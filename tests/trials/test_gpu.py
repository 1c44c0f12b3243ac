"""macOS stops the work on the GPU: the trial is repeated once, and nobody is blamed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlx_autoresearch.cli.app import app
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import GPUInterrupted
from mlx_autoresearch.sandbox.environment import clean_environment
from mlx_autoresearch.training import trainer
from mlx_autoresearch.trials.clock import Event
from mlx_autoresearch.trials.limits import Limits
from mlx_autoresearch.trials.trial import TrialFailed, run_trial, status_of
from tests.support.mac import errors

# In every process that is started: the step raises at its second call, as often as the file has letters, or in scoring.
STOPS = """
import os
from pathlib import Path
from mlx_autoresearch.recipe import interface
left = Path(os.environ["INTERRUPTIONS"])
make_step = interface.make_step
def made(*arguments):
    step, calls = make_step(*arguments), []
    def stopped(pairs):
        calls.append(1)
        if len(calls) == 2 and left.read_text():
            left.write_text(left.read_text()[1:])
            raise RuntimeError(os.environ["ERROR"])
        return step(pairs)
    return stopped
interface.make_step = made
"""


@pytest.fixture
def interruptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file: as many interruptions are to come as it has letters."""
    folder = tmp_path / "startup"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(STOPS)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setattr(
        "mlx_autoresearch.trials.trial.trial_environment",
        lambda scratch, **_: clean_environment(
            scratch,
            Path(tempfile.gettempdir()),  # where compiled loops are
            PYTHONPATH=path,
            INTERRUPTIONS=str(folder / "left"),
            ERROR=os.environ.get("ERROR", errors.INTERACTIVITY),
            MLX_AUTORESEARCH_CACHE=os.environ["MLX_AUTORESEARCH_CACHE"],
        ),
    )
    return folder / "left"


@pytest.mark.parametrize("error", [errors.INTERACTIVITY, errors.TIMEOUT])
def test_a_trial_that_is_interrupted_is_repeated_once(
    tiny: Config, tmp_path: Path, interruptions: Path, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERROR", error)
    events: list[Event] = []
    interruptions.write_text("x")
    trial = run_trial(tiny, seed=1, folder=tmp_path / "run", code=None, limits=Limits(), say=events.append)
    assert trial.steps == tiny.train.max_steps
    (again,) = [event["message"] for event in events if event["event"] == "again"]
    assert again.startswith("macOS stopped the work on the GPU: ") and again.endswith("; this trial is repeated")
    assert error.split(" (")[0] in again and "\n" not in again
    assert (tmp_path / "run/summary.json").is_file()


def test_a_trial_that_is_interrupted_again_fails_by_a_name_of_its_own(
    tiny: Config, tmp_path: Path, interruptions: Path
) -> None:
    interruptions.write_text("xxx")
    with pytest.raises(TrialFailed) as failure:
        run_trial(tiny, seed=1, folder=tmp_path / "run", code=None, limits=Limits())
    assert failure.value.kind == "gpu"
    assert status_of("gpu") == "crash"
    assert interruptions.read_text() == "x", "twice, and no more"


def test_metals_want_of_memory_is_out_of_memory(
    tiny: Config, tmp_path: Path, interruptions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERROR", errors.MEMORY)
    interruptions.write_text("xx")
    with pytest.raises(TrialFailed) as failure:
        run_trial(tiny, seed=1, folder=tmp_path / "run", code=None, limits=Limits())
    assert failure.value.kind == "out of memory"
    assert interruptions.read_text() == "x", "it is not repeated"


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, error: str) -> None:
    """In this process, the loop raises after so many steps."""
    loop = trainer.loop

    def stopped(*arguments):
        for record in loop(*arguments):
            yield record
            if record["step"] == step:
                raise RuntimeError(error)

    monkeypatch.setattr(trainer, "loop", stopped)


def test_a_training_ends_in_a_line_that_says_how_to_go_on(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.model_copy(update={"train": tiny.train.model_copy(update={"checkpoint_every": 1e-9})})
    (tmp_path / "tiny.yaml").write_text(config.to_yaml())
    stop_at(monkeypatch, 3, errors.TIMEOUT)
    done = CliRunner().invoke(app, ["train", str(tmp_path / "tiny.yaml"), "--runs", str(tmp_path / "runs")])
    assert done.exit_code == 1
    (line,) = done.stderr.strip().splitlines()[-1:]
    assert "macOS stopped the work on the GPU: let the display sleep" in line
    assert "AGX_RELAX_CDM_CTXSTORE_TIMEOUT=1" in line
    (run,) = (tmp_path / "runs").iterdir()
    assert line.endswith(f"continue with `mlx-autoresearch train --resume {run}`")
    monkeypatch.undo()
    assert CliRunner().invoke(app, ["train", "--resume", str(run)]).exit_code == 0


def test_before_the_first_checkpoint_it_does_not_promise_one(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(monkeypatch, 1, errors.INTERACTIVITY)
    with pytest.raises(GPUInterrupted) as error:
        trainer.train(tiny, runs=tmp_path / "runs")
    assert "--resume" not in str(error.value)


def test_the_variables_of_apples_gpus_reach_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"AGX_RELAX_CDM_CTXSTORE_TIMEOUT": "1", "MTL_DEBUG_LAYER": "1", "MLX_MAX_OPS_PER_BUFFER": "8"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert given.items() <= clean_environment(tmp_path, tmp_path).items()
