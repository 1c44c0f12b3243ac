"""Pruning by the pruner's word alone: no signals, whichever thread runs the sweep and however slow its storage is."""

from __future__ import annotations

import subprocess
import sys

from .conftest import Sweeper

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
print([t.state.name for t in queue.trials()])
"""


def test_a_pruner_that_answers_late_ends_its_trial_and_nothing_else(file: Sweeper) -> None:
    path = file(space={"optimizer.matrix_lr": [0.04]}, prune={"trials": 1})
    done = subprocess.run([sys.executable, "-c", SLOW, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("['PRUNED']\n")
