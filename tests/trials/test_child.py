"""What the untrusted side of a trial tells the parent: kinds of failure by type, never by words of a message."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import LossExploded, MetricRefused, OutOfMemory, RunFailed, UserError
from mlx_autoresearch.training import data, setup, trainer
from mlx_autoresearch.training.progress import Reporter
from mlx_autoresearch.trials import child


def events(monkeypatch: pytest.MonkeyPatch, folder: Path, complete) -> list[dict]:
    """What `child.train` sends while `complete` takes the place of the training, with no data."""
    monkeypatch.setattr(data, "open_data", lambda config: None)
    monkeypatch.setattr(data, "data_info", lambda data: {})
    monkeypatch.setattr(setup, "setup", lambda config, data: None)
    monkeypatch.setattr(trainer, "complete", complete)
    read, write = os.pipe()
    try:
        child.train(str(folder / "run"), json.dumps(Config().model_dump(mode="json")), "", "", "0", str(write))
    finally:
        os.close(write)
        with os.fdopen(read) as lines:
            sent = [json.loads(line) for line in lines]
    return sent


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (LossExploded("it blew up"), "nan"),
        (MetricRefused("the loss of causality: the model looks ahead"), "metric"),
        (OutOfMemory("too large for this machine"), "out of memory"),
        (UserError("kernels: custom: head_dim needs to be a multiple of 8"), "setup"),
        (UserError("the loss is not configured"), "setup"),
        (MemoryError("4 TiB"), "out of memory"),
        (RuntimeError("[malloc] Unable to allocate 4 bytes."), "out of memory"),
    ],
    ids=repr,
)
def test_a_failure_is_told_by_its_type(monkeypatch, tmp_path: Path, error: Exception, kind: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    assert events(monkeypatch, tmp_path, fail) == [{"event": "trouble", "kind": kind, "detail": str(error)}]


@pytest.mark.parametrize("error", [RunFailed("the loss needs evaluating"), RuntimeError("a bug"), TypeError("x")])
def test_what_is_no_known_kind_keeps_its_traceback(monkeypatch, tmp_path: Path, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    with pytest.raises(type(error), match=str(error)):
        events(monkeypatch, tmp_path, fail)


def test_the_end_of_the_training_is_told_by_a_call_and_not_by_a_line(monkeypatch, tmp_path: Path) -> None:
    def train(training: object, clock: object, run: object, data: object, reporter: Reporter, **_: object) -> None:
        reporter.say("evaluating")
        reporter.trained()
        reporter.say("evaluating")

    assert events(monkeypatch, tmp_path, train) == [{"event": "trained"}]
