"""A Mac is kept awake while something runs, once, and no longer than that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_autoresearch.machine import system
from mlx_autoresearch.machine.awake import awake
from tests.support.caffeinate import SAID, Caffeinate
from tests.support.laboratory import wait_until


def test_a_mac_is_kept_awake_once_until_the_last_one_is_done(
    tmp_path: Path, mac: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    caffeinate = Caffeinate(tmp_path / "calls", monkeypatch)
    said: list[str] = []
    for _ in range(2):
        with awake(said.append):
            with awake(said.append):
                wait_until(caffeinate.runs)
            assert caffeinate.runs()
        assert not caffeinate.runs()
    assert caffeinate.calls() == [["-i", "-s", "-w", str(os.getpid())]] * 2
    assert said == [SAID] * 2


def test_it_ends_when_what_it_is_for_raises(tmp_path: Path, mac: None, monkeypatch: pytest.MonkeyPatch) -> None:
    caffeinate = Caffeinate(tmp_path / "calls", monkeypatch)
    with pytest.raises(KeyboardInterrupt), awake(lambda line: None):
        wait_until(caffeinate.runs)
        raise KeyboardInterrupt
    assert not caffeinate.runs()


def test_a_killed_process_leaves_none_and_nobody_waits_for_it(
    tmp_path: Path, mac: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    caffeinate = Caffeinate(tmp_path / "calls", monkeypatch)
    script = (
        "import time\n"
        "from mlx_autoresearch.machine.awake import awake\n"
        "with awake(lambda line: print(line, flush=True)):\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        wait_until(caffeinate.runs)
        process.kill()
        out, _ = process.communicate(timeout=30)  # to the pipe's end: caffeinate does not hold it open
    assert out == SAID + "\n"
    wait_until(lambda: not caffeinate.runs())


def test_where_caffeinate_is_missing_one_line_warns(tmp_path: Path, mac: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said: list[str] = []
    with awake(said.append), awake(said.append):
        pass
    [line] = said
    assert line.startswith("warning: cannot run caffeinate (No such file or directory)")


def test_nothing_is_started_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "name", lambda: "linux")
    monkeypatch.setattr(subprocess, "Popen", None)
    said: list[str] = []
    with awake(said.append):
        assert said == []
