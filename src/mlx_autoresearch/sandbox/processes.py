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


def kill_all(find: Callable[[], Iterable[Process]], seconds: float = 10.0, *, adopts: bool = False) -> int:
    """Kill what `find` returns, again and again until it returns nothing; how many there were.

    They are stopped before they are killed, so that none can fork while another dies. adopts: this process is the
    subreaper of them all (Linux): it goes on until it has no child any more, of which no look can miss one that lives
    for a moment and leaves another. Raises TimeoutError when some are there after `seconds`.
    """
    until = time.monotonic() + seconds
    seen: set[int] = set()
    while True:
        found = list(find())
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in found:
                send(process, number)
        seen |= {p.pid for p in found}
        for process in found:
            with suppress(ChildProcessError):  # an orphan that came to us is ours to bury
                os.waitpid(process.pid, os.WNOHANG)
        while adopts and _has_child() and time.monotonic() < until:
            seen |= _kill_children()  # without a pause: each may be about to fork
        if not found and not (adopts and _has_child()):
            return len(seen)
        if time.monotonic() > until:
            raise TimeoutError(f"processes {sorted(p.pid for p in found) or 'that fork'} cannot be killed")
        time.sleep(0.01)


def _kill_children() -> set[int]:
    """Kill this process's children; their numbers, which nobody else can have before they are buried. Linux only."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as listed:
            children = set(map(int, listed.read().split()))
    except OSError:  # a kernel without CONFIG_PROC_CHILDREN
        children = {p.pid for p in running() if p.parent == os.getpid()}
    for child in children:
        os.kill(child, signal.SIGKILL)
    return children


def _has_child() -> bool:
    """Bury the children that are dead; whether there are others."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True
