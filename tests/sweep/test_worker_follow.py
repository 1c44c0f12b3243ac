"""What a sweep does while a trial runs: it shows it, asks the pruner, and blames no trial for what the storage does."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from mlx_autoresearch.machine.lock import device_lock
from mlx_autoresearch.sweep import worker
from mlx_autoresearch.sweep.sweep import open_sweep, work
from mlx_autoresearch.sweep.view import View
from mlx_autoresearch.trials.trial import run_trial
from tests.support.sweeps import Sweeper

# The pruner answers only after the training has ended; whoever waits for threads with a time limit is out of patience.
SLOW = """
import sys, threading, time
from pathlib import Path
from mlx_autoresearch.sweep import view
from mlx_autoresearch.sweep.sweep import open_sweep, work
import optuna

home = Path(sys.argv[1]).parent / "home"
join = threading.Thread.join
threading.Thread.join = lambda self, timeout=None: join(self, timeout and 0.05)

def should_prune(trial):
    until = time.monotonic() + 60
    while not list(home.glob("trials/*/*/summary.json")) and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.5)
    return True

optuna.Trial.should_prune = should_prune
queue = open_sweep(sys.argv[1], home=home)
work(queue, view.View())
print([t.state.name for t in queue.points()])
"""


@pytest.fixture
def one_point(file: Sweeper, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of one point that is really trained."""
    monkeypatch.setattr(worker, "run_trial", run_trial)
    return file(space={"optimizer.matrix_lr": [0.04]}, prune={"trials": 1})


def test_a_pruner_that_answers_late_ends_its_trial_and_nothing_else(one_point: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SLOW, str(one_point)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("['PRUNED']\n")


def test_an_error_of_the_storage_stops_the_sweep_and_costs_no_point(
    one_point: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def report(self: optuna.Trial, value: float, step: int) -> None:
        raise ConnectionError("the storage is gone")

    queue = open_sweep(one_point, home=one_point.parent / "home")
    with monkeypatch.context() as patch, pytest.raises(ConnectionError, match="the storage is gone"):
        patch.setattr(optuna.Trial, "report", report)
        work(queue, View())
    work(queue, View())
    assert [t.state for t in queue.points()] == [TrialState.COMPLETE]


def test_a_sweep_that_waits_for_another_run_says_so(one_point: Path) -> None:
    class Lines(View):
        def say(self, line: str) -> None:
            if not line.startswith("keeping this Mac awake"):
                lines.append(line)
                said.set()

    lines: list[str] = []
    said = threading.Event()
    queue = open_sweep(one_point, home=one_point.parent / "home")
    thread = threading.Thread(target=work, args=(queue, Lines()))
    with device_lock(pytest.fail):
        thread.start()
        assert said.wait(60)
    thread.join()
    assert lines[0].startswith("waiting for another run on this machine to finish: process ")
    assert len(lines) == 2
