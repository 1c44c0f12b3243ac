"""The table of a sweep: best first, without a result last, on a terminal and in table.tsv."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.ledger.ledger import Trial
from mlx_autoresearch.sweep import worker
from mlx_autoresearch.sweep.sweep import open_sweep
from mlx_autoresearch.sweep.table import print_table
from mlx_autoresearch.trials.trial import TrialFailed
from tests.support.sweeps import Sweeper, free_trial, rows, run_sweep


def test_points_without_a_result_come_last(
    file: Sweeper, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(config: Config, **rest: Any) -> Trial:
        if config.optimizer.matrix_lr == 0.01:
            raise TrialFailed("nan", "the loss is NaN at step 3")
        return free_trial(config, **rest)

    monkeypatch.setattr(worker, "run_trial", fails)
    path = file(space={"optimizer.matrix_lr": [0.01, 0.1, 0.04]})
    home = run_sweep(path).home
    assert [(row["status"], row["optimizer.matrix_lr"]) for row in rows(home)] == [
        ("complete", "0.04"),
        ("complete", "0.1"),
        ("failed", "0.01"),
    ]
    print_table(open_sweep(path, home=home))
    out = capsys.readouterr().out
    assert "3 of 3 points, best first" in out
    assert [line.split()[3] for line in out.splitlines() if line.startswith("│")] == ["2.000000", "2.916291", "failed"]
