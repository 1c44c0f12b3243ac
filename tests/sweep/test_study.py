"""The queue: shared by processes, whole after a kill or a power cut, in a journal or in a database."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from optuna.trial import TrialState

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.ledger.ledger import Ledger
from mlx_autoresearch.methods import CURRENT
from mlx_autoresearch.sweep.sweep import open_sweep
from tests.support.sweeps import Sweeper, rows, run_sweep, start_worker


def wait_for_a_point(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"


def test_another_sweep_of_the_same_name_is_refused(file: Sweeper, base: Path) -> None:
    run_sweep(file())
    with pytest.raises(UserError, match="another space"):
        run_sweep(file(space={"optimizer.matrix_lr": [0.01, 0.1]}))
    with pytest.raises(UserError, match="another seeds"):
        run_sweep(file(seeds=[5]))


@pytest.mark.parametrize("methods", [None, {"metric": 1}])
def test_a_sweep_of_another_metric_is_refused(file: Sweeper, methods: dict[str, int] | None) -> None:
    home = run_sweep(file()).home
    queue = open_sweep(file(), home=home)
    assert queue.study.user_attrs["methods"] == asdict(CURRENT)
    queue.study.set_user_attr("methods", methods)
    with pytest.raises(UserError, match=r"begun with version 1 of the metric \(now 2\)"):
        open_sweep(file(), home=home)


@pytest.mark.parametrize("storage", [False, True])
def test_what_a_killed_process_had_begun_is_run_again(file: Sweeper, tmp_path: Path, storage: bool) -> None:
    url = f"sqlite:///{tmp_path}/study.db" if storage else None
    path = file()
    with start_worker(path, tmp_path / "never", url) as process:
        wait_for_a_point(process)
        process.send_signal(signal.SIGKILL)
    result = run_sweep(path, url)
    assert len(rows(result.home)) == 3
    tried = [r.overrides["optimizer.matrix_lr"] for r in Ledger(result.home / "ledger.jsonl").records()]
    assert sorted(tried) == [0.01, 0.04, 0.1]


@pytest.mark.parametrize("target", ["runs/sweeps/j/journal.log", "journal.log", None])
def test_a_lock_that_a_killed_process_left_holds_nobody_up(file: Sweeper, target: str | None) -> None:
    """Optuna's is a link or a file beside the journal; a link from another folder leads nowhere. It used to hang."""
    path = file()
    home = path.parent / "home"
    home.mkdir()
    lock = home / "journal.log.lock"
    lock.symlink_to(target) if target else lock.touch()
    assert len(rows(run_sweep(path).home)) == 3


def test_two_processes_share_the_work_and_do_nothing_twice(file: Sweeper, tmp_path: Path) -> None:
    path, gate = file(space={"optimizer.matrix_lr": [0.01 * i for i in range(1, 9)]}), tmp_path / "gate"
    processes = [start_worker(path, gate) for _ in range(2)]
    for process in processes:
        wait_for_a_point(process)  # each has one
    gate.touch()
    more = [p.communicate(timeout=120)[0].count("begun") for p in processes]
    assert [p.returncode for p in processes] == [0, 0]
    assert 2 + sum(more) == 8
    assert len({r.number for r in Ledger(path.parent / "home" / "ledger.jsonl").records()}) == 8


def test_a_live_process_keeps_its_point(file: Sweeper, tmp_path: Path) -> None:
    path, gate = file(), tmp_path / "gate"
    with start_worker(path, gate) as process:
        wait_for_a_point(process)
        queue = open_sweep(path, home=path.parent / "home")
        assert queue.requeue_dead() == 0
        gate.touch()
        process.communicate(timeout=60)
    assert queue.count(TrialState.COMPLETE) == 3


def test_a_journal_that_a_power_cut_tore_is_mended(file: Sweeper) -> None:
    path = file()
    before = run_sweep(path)
    with (before.home / "journal.log").open("a") as journal:
        journal.write('{"op_code": 5, "work')
    assert run_sweep(path) == before


@pytest.mark.parametrize("url", ["nothing", "postgresql://me:secret@127.0.0.1:1/x", "sqlite:////no/such/folder/x.db"])
def test_a_bad_storage_is_one_line_without_the_password(file: Sweeper, url: str) -> None:
    with pytest.raises(UserError, match="the storage") as error:
        run_sweep(file(), url)
    assert "\n" not in str(error.value) and "secret" not in str(error.value)


def test_a_missing_driver_is_named(file: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as if it were not installed
    with pytest.raises(UserError, match=r"needs its database's driver: pip install 'psycopg\[binary\]'"):
        run_sweep(file(), "postgresql://me@127.0.0.1:1/x")


def test_a_database_takes_the_place_of_the_journal(file: Sweeper, tmp_path: Path) -> None:
    result = run_sweep(file(storage=f"sqlite:///{tmp_path}/study.db"))
    assert result.values == {"optimizer.matrix_lr": 0.04}
    assert not (result.home / "journal.log").exists()
