"""A sweep from its file to its table: stopped, continued, finished, and from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mlx_autoresearch.cli.app import app
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import RunFailed
from mlx_autoresearch.ledger.ledger import Ledger, Trial
from mlx_autoresearch.sweep import worker
from mlx_autoresearch.trials.trial import TrialFailed
from tests.support.sweeps import Lines, Sweeper, free_trial, rows, run_sweep


def test_it_can_be_stopped_and_continued(file: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def stopped(config: Config, **rest: Any) -> Trial:
        calls.append(config.optimizer.matrix_lr)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return free_trial(config, **rest)

    monkeypatch.setattr(worker, "run_trial", stopped)
    path = file()
    with pytest.raises(KeyboardInterrupt, match="same command"):
        run_sweep(path)
    result = run_sweep(path)
    assert calls == [0.01, 0.1, 0.04, 0.1]  # what was begun goes to the end of the queue
    assert len(rows(result.home)) == 3
    assert len(Ledger(result.home / "ledger.jsonl").records()) == 3


def test_a_finished_sweep_runs_nothing_again(file: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file()
    before = run_sweep(path)
    monkeypatch.setattr(worker, "run_trial", None)
    assert run_sweep(path) == before


def test_a_table_that_is_cut_short_leaves_the_one_before(file: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file()
    table = run_sweep(path).home / "table.tsv"
    before = table.read_text()

    def cut_short(target: Path, *_: Any, **__: Any) -> None:
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", cut_short)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(path)
    assert table.read_text() == before


def test_a_sweep_from_the_command_line(file: Sweeper, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app(["sweep", str(file()), "--runs", str(tmp_path / "runs")], standalone_mode=False)
    out = capsys.readouterr().out
    assert "best_val_bpb: 2.000000\n" in out
    assert "best: optimizer.matrix_lr=0.04\n" in out
    assert (tmp_path / "runs" / "lr" / "table.tsv").is_file()


def test_a_sweep_without_any_result_fails_with_a_line(
    file: Sweeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(config: Config, **_: Any) -> Trial:
        raise TrialFailed("nan", "the loss is NaN at step 3\nand more")

    monkeypatch.setattr(worker, "run_trial", fails)
    arguments = ["sweep", str(file()), "--runs", str(tmp_path / "runs")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    said = "error: no point of the sweep has a result; the last one: nan: the loss is NaN at step 3"
    assert done.stderr.splitlines() == [said]
    assert CliRunner().invoke(app, arguments).exit_code == 1


def test_fewer_trials_than_were_queued_are_said(file: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(config: Config, **_: Any) -> Trial:
        raise KeyboardInterrupt

    space = {"optimizer.matrix_lr": {"low": 0.01, "high": 0.1}}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(worker, "run_trial", stopped)
        run_sweep(file(method="random", trials=5, space=space))
    view = Lines()
    run_sweep(file(method="random", trials=3, space=space), view=view)
    assert "note: trials is 3 now, and 2 more were queued before: they are tried as well" in view.lines


def test_a_full_disk_is_not_a_points_fault(file: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(config: Config, **_: Any) -> Trial:
        raise TrialFailed("disk", "0 bytes free on /there")

    with monkeypatch.context() as patch, pytest.raises(RunFailed, match="0 bytes free on /there: make room"):
        patch.setattr(worker, "run_trial", full)
        run_sweep(file())
    assert len(rows(run_sweep(file()).home)) == 3
