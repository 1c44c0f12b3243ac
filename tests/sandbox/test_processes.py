"""A mark finds its own processes and nobody else's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mlx_autoresearch.sandbox import processes
from mlx_autoresearch.sandbox.command import Running
from tests.support.laboratory import wait_until

# Not programs of the system, whose environments macOS hides.
SLEEP = [sys.executable, "-c", "import time; time.sleep(300)"]
WAIT = [sys.executable, "-c", "print(flush=True); input()"]
HOMES = ["a", "a/b", "a/experiments/x/runs/research/b", "ab", "a b", "a/\udce9", "a-", "a/" + "0" * 32]


def test_a_home_inside_another_or_of_a_like_name_keeps_its_processes(tmp_path: Path) -> None:
    running = {}
    try:
        for home in HOMES:
            mark = f"research:{tmp_path / home}"
            running[home] = Running(SLEEP, cwd=tmp_path, env={}, seconds=60, mark=mark)
        for home in HOMES:
            wait_until(lambda home=home: bool(processes.marked(f"research:{tmp_path / home}")))
            assert len(processes.marked(f"research:{tmp_path / home}")) == 1, home
        processes.kill_all(lambda: processes.marked(f"research:{tmp_path / 'a'}"))
        assert running["a"].wait().returncode == -9
        assert [home for home in HOMES if running[home].alive] == HOMES[1:]
    finally:
        for command in running.values():
            command.stop()


def test_processes_are_killed_after_the_clock_was_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are known by when they started, which a clock that is set moves, in seconds since the epoch."""
    mark = f"test:{tmp_path}"
    command = Running(SLEEP, cwd=tmp_path, env={}, seconds=60, mark=mark)
    try:
        wait_until(lambda: bool(processes.marked(mark)))
        real = psutil._psplatform.boot_time  # type: ignore[attr-defined]
        monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: real() + 1)  # type: ignore[attr-defined]
        assert processes.kill_all(lambda: processes.marked(mark), seconds=2) == 1
        assert command.wait().returncode == -9
    finally:
        command.stop()


@pytest.mark.parametrize("value", ["{mark}", "{mark}//", "{mark}//0123"])
def test_a_mark_is_found_whole_or_as_the_first_part(tmp_path: Path, value: str) -> None:
    mark = f"test:{tmp_path}"
    env = {processes.MARK: value.format(mark=mark)}
    with subprocess.Popen(WAIT, env=env, stdin=-1, stdout=-1) as process:
        assert process.stdout is not None and process.stdout.readline()  # it is the program by now
        assert [p.pid for p in processes.marked(mark)] == [process.pid]
        assert processes.marked(mark[:-1]) == processes.marked(f"{mark}/") == []
        process.kill()


def test_a_process_does_not_find_itself(tmp_path: Path) -> None:
    script = "from mlx_autoresearch.sandbox import processes; print(processes.marked('test'))"
    env = os.environ | {processes.MARK: "test"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
