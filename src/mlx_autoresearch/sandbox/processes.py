"""Finds the processes of a command by ancestors, session or mark, and kills them until none is left.

A mark is a text in a process's environment, which its descendants inherit. It tells the processes of one search from
all others, after a crash too. A mark may have parts, separated by "//": who looks for the first part finds them all.
No absolute path contains "//", so the mark of a folder never matches that of a folder inside it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from mlx_autoresearch.machine.processes import Process, environment, running, send

MARK = "MLX_AUTORESEARCH_MARK"  # the environment variable
SEPARATOR = "//"


class Family:
    """The descendants of this process, and whoever is in a session that one of them has led.

    Every look remembers whom it found. So an orphan is found although its parent is gone, as long as it was seen
    before, or is in a session of one that was; on Linux it comes to this process anyhow, if that is a subreaper.
    """

    def __init__(self, child: int):
        """child: a process that this one has started, which leads a session; it may have ended."""
        self._seen: set[Process] = set()
        self._sessions = {child}

    def look(self) -> list[Process]:
        """Those that are running now."""
        everyone, own = running(), os.getpid()
        self._seen &= set(everyone)
        # One that is empty can get no new member: its number may come to be somebody else's.
        self._sessions &= {p.session for p in everyone}
        members = {p.pid for p in self._seen}
        while True:
            roots = members | {own}
            more = [
                p
                for p in everyone
                if p.pid not in roots and (p.parent in roots or p.session in members or p.session in self._sessions)
            ]
            if not more:
                break
            members |= {p.pid for p in more}
        found = [p for p in everyone if p.pid in members]
        self._seen |= set(found)
        self._sessions |= {p.session for p in found} - {os.getsid(0)}
        return found


def marked(mark: str) -> list[Process]:
    """Processes with this mark, or with one that begins with it and "//"; this process is left out."""
    return [p for p in running() if p.pid != os.getpid() and has_mark(environment(p).get(MARK, ""), mark)]


def has_mark(value: str, mark: str) -> bool:
    """Whether an environment's mark is `mark`, or begins with it and "//"."""
    return value == mark or value.startswith(mark + SEPARATOR)


def kill_all(find: Callable[[], Iterable[Process]], seconds: float = 10.0) -> int:
    """Kill what `find` returns, again and again until it returns nothing; how many there were.

    They are stopped before they are killed, so that none can fork while another dies. Raises TimeoutError when some
    are there after `seconds`.
    """
    until = time.monotonic() + seconds
    seen: set[Process] = set()
    while found := list(find()):
        if time.monotonic() > until:
            raise TimeoutError(f"processes {sorted(p.pid for p in found)} cannot be killed")
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in found:
                send(process, number)
        for process in found:
            with suppress(ChildProcessError):  # an orphan that came to us is ours to bury
                os.waitpid(process.pid, os.WNOHANG)
        seen |= set(found)
        time.sleep(0.01)
    return len(seen)
