"""Sweeps whose runs cost nothing, here and in processes of their own."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.ledger.ledger import Trial
from mlx_autoresearch.sweep.sweep import Result, open_sweep, work, write_up
from mlx_autoresearch.sweep.view import View

_ROOT = Path(__file__).parents[2]

Sweeper = Callable[..., Path]  # takes the fields of a sweep's file, and writes it


class Lines(View):
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def bpb(config: Config, seed: int) -> float:
    """Best at a matrix_lr of 0.04, with a little noise from the seed."""
    return 2 + abs(math.log(config.optimizer.matrix_lr / 0.04)) + 0.001 * (seed % 7)


def free_trial(config: Config, *, seed: int, folder: Path, **_: Any) -> Trial:
    """In the place of `run_trial`: costs nothing."""
    folder.mkdir(parents=True)
    (folder / "checkpoint.safetensors").write_bytes(b"weights")
    return Trial(seed, bpb(config, seed), 10, 1000, 1.0, 2.0, 100.0, 1.0, str(folder))


def run_sweep(file: Path, storage: str | None = None, view: View | None = None) -> Result:
    """Open a sweep in the folder "home" beside its file, work through it, and write it up."""
    queue = open_sweep(file, home=file.parent / "home", storage=storage)
    work(queue, view or Lines())
    return write_up(queue)


def rows(home: Path) -> list[dict[str, str]]:
    """The lines of table.tsv by column."""
    lines = [line.split("\t") for line in (home / "table.tsv").read_text().splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


def start_worker(file: Path, gate: Path, storage: str | None = None) -> subprocess.Popen[str]:
    """Another process at work on the sweep: it prints "begun" for each point, and waits in it until `gate` exists.

    It waits for a minute at most, so that a failing test ends.
    """
    command = [sys.executable, "-m", __name__, str(file), str(gate), storage or ""]
    return subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True)


def _work_behind(file: Path, gate: Path, storage: str) -> None:
    from mlx_autoresearch.sweep import worker

    def waiting(config: Config, **rest: Any) -> Trial:
        print("begun", flush=True)
        until = time.monotonic() + 60
        while not gate.exists() and time.monotonic() < until:
            time.sleep(0.01)
        return free_trial(config, **rest)

    worker.run_trial = waiting
    run_sweep(file, storage or None)


if __name__ == "__main__":
    _work_behind(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
