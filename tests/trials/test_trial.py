"""What an untrusted training sends and leaves: none of it stops the researcher or its clock."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.research.view import step_text
from mlx_autoresearch.trials.trial import Limits, TrialFailed, _check_folder, _Clock, _summary


def test_no_mark_stops_the_clock() -> None:
    read, write = os.pipe()
    clock = _Clock(lambda news: print(step_text(news)))
    reader = threading.Thread(target=clock.read, args=(read,))
    reader.start()
    step = b'{"event": "step", "step": 1, "loss": 2, "remaining": 3}\n'
    endless = b'{"event": "step", "step": Infinity, "loss": NaN, "remaining": 1}\n'
    for line in (step, b"[" * 60_000 + b"\n", b"x" * 200_000 + b"\n", b'["event"]\n', b"\xff\n", endless):
        os.write(write, line)
    time.sleep(0.05)
    os.write(write, step)
    os.close(write)
    reader.join(20)
    assert clock.steps == 3
    assert clock.training_seconds > 0.04


@pytest.mark.parametrize("value", ["1e999", f"{10**400}", "null", "[" * 60_000, '"x"'])
def test_a_summary_that_makes_no_sense_is_a_failed_trial(tmp_path: Path, value: str) -> None:
    rest = '"training_seconds": 1, "peak_memory_mb": 1, "num_params_M": 1'
    (tmp_path / "summary.json").write_text(f'{{"num_steps": {value}, {rest}}}')
    with pytest.raises(TrialFailed, match="no summary"):
        _summary(tmp_path)


def test_a_run_folder_holds_nothing_but_files(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "summary.json").write_text("{}")
    _check_folder(run)
    (tmp_path / "link").symlink_to(run)
    (run / ".summary.json").symlink_to(tmp_path / "elsewhere")
    for folder in (run, tmp_path / "link"):
        with pytest.raises(TrialFailed, match="guard"):
            _check_folder(folder)


def test_a_training_that_does_not_score_has_no_time_for_it() -> None:
    limits = Limits(startup_seconds=10, evaluate_seconds=1000)
    budget = 1.1 * Config().train.time_budget + 5
    assert limits.wall_seconds(Config(), score=False) == pytest.approx(10 + budget)
    assert limits.wall_seconds(Config(), score=True) == pytest.approx(1010 + budget)
