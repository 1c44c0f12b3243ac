"""A training in this process, into a run folder of a given name."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.training import trainer
from mlx_autoresearch.training.clock import Clock
from mlx_autoresearch.training.data import data_info, open_data
from mlx_autoresearch.training.progress import Reporter
from mlx_autoresearch.training.run import Run
from mlx_autoresearch.training.setup import setup


def train_in(folder: Path, config: Config, *, score: bool, reporter: Reporter) -> dict[str, Any]:
    """The summary of a training in the new run folder `folder`."""
    clock, data = Clock(config.train, time.perf_counter()), open_data(config)
    training = setup(config, data)
    run = Run.create_at(folder, config, {"data": data_info(data)})
    return trainer.complete(training, clock, run, data, reporter, score=score)
