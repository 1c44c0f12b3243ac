"""Short trainings that several test files share."""

from __future__ import annotations

import io
import os
import signal
import time
from pathlib import Path
from typing import Any

from mlx_autoresearch.config.load import validate_config
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.data.prepare import prepare
from mlx_autoresearch.machine.paths import cache_dir
from mlx_autoresearch.training import trainer
from mlx_autoresearch.training.clock import Clock
from mlx_autoresearch.training.data import data_info, open_data
from mlx_autoresearch.training.progress import Reporter
from mlx_autoresearch.training.run import Run
from mlx_autoresearch.training.setup import setup
from tests.support.corpus import tiny_settings


def make_config(corpus: Path, **train) -> Config:
    values = tiny_settings(corpus, **{"checkpoint_every": None} | train)
    config = validate_config(values, "the test")
    prepare(config.data.source, vocab_size=config.data.vocab_size, cache_dir=cache_dir(), quiet=True)
    return config


def quiet() -> Reporter:
    return Reporter(io.StringIO())


def train(config: Config, runs: Path, reporter: Reporter | None = None) -> tuple[Run, dict]:
    summary = trainer.train(config, runs=runs, reporter=reporter or quiet())
    return Run.open(summary["run"]), summary


def losses(run: Run) -> list[float]:
    return [record["loss"] for record in run.metrics()]


def train_in(folder: Path, config: Config, *, score: bool, reporter: Reporter) -> dict[str, Any]:
    """The summary of a training in the new run folder `folder`."""
    clock, data = Clock(config.train, time.perf_counter()), open_data(config)
    training = setup(config, data)
    run = Run.create_at(folder, config, {"data": data_info(data)})
    return trainer.complete(training, clock, run, data, reporter, score=score)


class StopAfter(Reporter):
    """Sends this process a signal after a step, as Ctrl-C does."""

    def __init__(self, step: int, number: signal.Signals = signal.SIGINT):
        super().__init__(io.StringIO())
        self.at, self.number = step, number

    def step(self, record: dict, remaining: float) -> None:
        if record["step"] == self.at:
            os.kill(os.getpid(), self.number)
