"""What an untrusted training leaves, and what the parent's own side does wrong: neither is taken for the other."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.sandbox import processes
from mlx_autoresearch.trials import trial
from mlx_autoresearch.trials.clock import Event
from mlx_autoresearch.trials.limits import Limits
from mlx_autoresearch.trials.trial import TrialFailed, check_folder, read_summary, run_trial
from tests.support.laboratory import make_repository, replace


@pytest.mark.parametrize("value", ["1e999", f"{10**400}", "null", "[" * 60_000, '"x"'])
def test_a_summary_that_makes_no_sense_is_a_failed_trial(tmp_path: Path, value: str) -> None:
    rest = '"training_seconds": 1, "peak_memory_mb": 1, "num_params_M": 1'
    (tmp_path / "summary.json").write_text(f'{{"num_steps": {value}, {rest}}}')
    with pytest.raises(TrialFailed, match="no summary"):
        read_summary(tmp_path)


def test_a_run_folder_holds_nothing_but_files(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "summary.json").write_text("{}")
    check_folder(run)
    (tmp_path / "link").symlink_to(run)
    (run / ".summary.json").symlink_to(tmp_path / "elsewhere")
    for folder in (run, tmp_path / "link"):
        with pytest.raises(TrialFailed, match="guard"):
            check_folder(folder)


@pytest.fixture(params=["installed", "snapshot"])
def code(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return None if request.param == "installed" else make_repository(tmp_path / "code")


def run(config: Config, tmp_path: Path, code: Path | None, say: trial.Say) -> None:
    run_trial(config, seed=1, folder=tmp_path / "runs" / "1", code=code, limits=Limits(), mark=str(tmp_path), say=say)


def test_what_the_callback_raises_is_raised_and_ends_the_training(
    tiny: Config, tmp_path: Path, code: Path | None
) -> None:
    def broken(event: Event) -> None:
        if event["event"] == "step":
            raise OSError("the terminal is gone")

    endless = replace(tiny, train=replace(tiny.train, max_steps=1_000_000))
    with pytest.raises(OSError, match="the terminal is gone"):
        run(endless, tmp_path, code, broken)
    assert not processes.marked(str(tmp_path))
    assert not list(tmp_path.glob("runs/.scratch-*"))


def test_the_callback_is_called_in_the_thread_that_waits(tiny: Config, tmp_path: Path, code: Path | None) -> None:
    events: list[str] = []
    threads = set()

    def say(event: Event) -> None:
        events.append(event["event"])
        threads.add(threading.current_thread())

    run(tiny, tmp_path, code, say)
    assert [name for name in events if name != "step"] == ["start", "trained", "finish"]
    assert events.count("step") == 6
    assert threads == {threading.current_thread()}


@pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="the size of a pipe is fixed here")
def test_a_callback_that_hangs_does_not_hold_up_the_training(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pipe() -> tuple[int, int]:
        ends = original()
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, 4096)
        return ends

    original = os.pipe
    monkeypatch.setattr(os, "pipe", pipe)
    finished: list[bool] = []

    def hangs(event: Event) -> None:
        """At the first step, until the training has ended, which it cannot where its events fill the pipe."""
        if event["event"] == "step" and not finished:
            until = time.monotonic() + 30
            while not (tmp_path / "runs/1/summary.json").exists() and time.monotonic() < until:
                time.sleep(0.02)
            finished.append((tmp_path / "runs/1/summary.json").exists())

    run(replace(tiny, train=replace(tiny.train, max_steps=100)), tmp_path, None, hangs)
    assert finished == [True]
