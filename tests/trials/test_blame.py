"""What ended a trial: the disk and this process's own memory have names of their own."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.sandbox.command import Outcome
from mlx_autoresearch.trials import trial as trials
from mlx_autoresearch.trials.limits import Limits
from mlx_autoresearch.trials.trial import TrialFailed, status_of


@pytest.mark.parametrize(
    "error", [RuntimeError("[malloc] Unable to allocate 5 bytes."), MemoryError(), RuntimeError("CUDA: out of memory")]
)
def test_memory_that_scoring_lacks_is_the_trials_end_and_not_the_searchs(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The search's own process scores changed code: its error ended the search."""

    def scored(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(trials, "score_confined", scored)
    with pytest.raises(TrialFailed) as failure:
        trials._score(tmp_path, tmp_path, tiny, Limits(), mark="test")
    assert failure.value.kind == "out of memory"
    assert failure.value.detail.startswith("while its logits were scored: out of memory: lower ")


def ended(output: str) -> Outcome:
    return Outcome(1, "exit", output, 0, 1.0, 1.0)


def test_a_training_that_a_full_disk_has_ended_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials._check_disk(tmp_path, ended("KeyError: 3"))
    with pytest.raises(TrialFailed) as failure:
        trials._check_disk(tmp_path, ended(f"OSError: [Errno 28] {os.strerror(errno.ENOSPC)}"))
    assert (failure.value.kind, status_of("disk")) == ("disk", "crash")
    monkeypatch.setattr(trials, "trouble", lambda folder: f"0 bytes free on {folder}")
    with pytest.raises(TrialFailed, match=f"disk: 0 bytes free on {tmp_path}"):  # MLX does not say why it cannot write
        trials._check_disk(tmp_path, ended("RuntimeError: [write] Unable to write 100 bytes to file."))
