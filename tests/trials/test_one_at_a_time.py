"""`train`, `train --resume` and trials take turns on the device."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.machine.lock import device_lock
from mlx_autoresearch.trials.clock import Event
from mlx_autoresearch.trials.limits import Limits
from mlx_autoresearch.trials.trial import run_trial

HOLD = """
import time
from mlx_autoresearch.machine.lock import device_lock
with device_lock(print):
    print("held", flush=True)
    time.sleep(600)
"""


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def train(*arguments: str | Path) -> subprocess.Popen[str]:
    return start("-m", "mlx_autoresearch", "train", *map(str, arguments))


@pytest.fixture
def file(tiny: Config, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny.to_yaml())
    return path


@pytest.fixture
def trained(tiny: Config, tmp_path: Path) -> Path:
    run_trial(tiny, seed=1, folder=tmp_path / "trained", code=None, limits=Limits())
    return tmp_path / "trained"


def first_line(process: subprocess.Popen[str]) -> str:
    """The first one, but for a Mac's that says that it is kept awake."""
    assert process.stdout is not None
    line = process.stdout.readline()
    return process.stdout.readline() if line.startswith("keeping this Mac awake") else line


def test_a_training_waits_says_for_whom_and_goes_on_when_the_other_is_killed(file: Path, tmp_path: Path) -> None:
    with start("-c", HOLD) as holder:
        assert first_line(holder) == "held\n"
        with train(file, "--runs", tmp_path / "runs") as process:
            line = first_line(process)
            assert line.startswith(f"waiting for another run on this machine to finish: process {holder.pid}, ")
            assert not (tmp_path / "runs").exists()
            holder.kill()
            output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "waiting" not in output and "val_bpb:" in output


@pytest.mark.parametrize("resumed", [False, True])
def test_ctrl_c_while_waiting_ends_with_one_line(file: Path, trained: Path, tmp_path: Path, resumed: bool) -> None:
    with device_lock(pytest.fail):
        arguments: list[Any] = ["--resume", trained] if resumed else [file, "--runs", tmp_path / "runs"]
        with train(*arguments) as process:
            assert first_line(process).startswith("waiting for another run")
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (130, "", "stopped\n")


def test_an_evaluation_waits_and_says_so(trained: Path) -> None:
    with start("-c", HOLD) as holder:
        assert first_line(holder) == "held\n"
        with start("-m", "mlx_autoresearch", "evaluate", str(trained)) as process:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith(f"waiting for another run on this machine to finish: process {holder.pid}, ")
            holder.kill()
            output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.startswith("val_bpb: ")


def test_a_trial_waits_and_says_so(tiny: Config, tmp_path: Path) -> None:
    events: list[Event] = []
    said = threading.Event()

    def say(event: Event) -> None:
        events.append(event)
        said.set()

    def trial() -> None:
        run_trial(tiny, seed=1, folder=tmp_path / "run", code=None, limits=Limits(), say=say)

    thread = threading.Thread(target=trial)
    with device_lock(pytest.fail):
        thread.start()
        assert said.wait(60)
    thread.join()
    assert events[0]["event"] == "waiting"
    assert events[0]["message"].startswith("waiting for another run on this machine to finish: process ")
    assert [e["event"] for e in events[1:] if e["event"] != "step"] == ["waited", "start", "trained", "finish"]
    assert events[1]["seconds"] > 0
