"""The processes of a search that was killed are found again, however its home is written."""

from __future__ import annotations

import sys
from pathlib import Path

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.research.home import Search
from mlx_autoresearch.sandbox import processes
from mlx_autoresearch.sandbox.command import Running
from tests.support.laboratory import make_search, wait_until

# Not a program of the system, whose environment macOS hides.
SLEEP = [sys.executable, "-c", "import time; time.sleep(300)"]


def test_processes_of_a_search_inside_another_are_left_alone(repository: Path, tiny: Config) -> None:
    outer = Search.start(make_search(tiny, tag="outer"), repository / "runs", repository)
    inner = Search.start(make_search(tiny, tag="inner"), outer.home / "worktree" / "runs", repository)
    like = Search.start(make_search(tiny, tag="outer2"), repository / "runs", repository)
    link = repository / "link"
    link.symlink_to(repository / "runs")
    commands = {
        home: Running(SLEEP, cwd=repository, env={}, seconds=60, mark=home.mark) for home in (outer, inner, like)
    }
    try:
        wait_until(lambda: all(processes.marked(home.mark) for home in commands))
        Search.open(link / "outer").recover()
        assert [commands[home].alive for home in (inner, like)] == [True, True]
        assert commands[outer].wait().returncode == -9
        assert processes.marked(outer.mark) == []
    finally:
        for command in commands.values():
            command.stop()
