"""Finds processes by their ancestors, session or mark, and kills them until none is left.

A mark is a text in a process's environment, which its descendants inherit. It tells the processes of one search from
all others, after a crash too. A mark may have parts, separated by "//": who looks for the first part finds them all.
No absolute path contains "//", so the mark of a folder never matches that of a folder inside it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlx_autoresearch.machine import system

MARK = "MLX_AUTORESEARCH_MARK"  # the environment variable
SEPARATOR = "//"


@dataclass(frozen=True)
class Process:
    """A running process, zombies left out; rss in bytes."""

    pid: int
    parent: int
    session: int
    rss: int


def running() -> list[Process]:
    """Every process that this user can see."""
    if not system.is_linux():
        return _from_ps()
    page = os.sysconf("SC_PAGE_SIZE")
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # pid (name) state ppid pgrp session ...; the name may hold spaces and brackets
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if fields[0] not in "ZX":
            found.append(Process(int(entry.name), int(fields[1]), int(fields[3]), int(fields[21]) * page))
    return found


def descendants(root: int) -> list[Process]:
    """The children of `root`, their children and so on, and whoever is in a session that one of them leads."""
    everyone = running()
    known = {root}
    while True:
        more = {p.pid for p in everyone if p.pid not in known and (p.parent in known or p.session in known)}
        if not more:
            return [p for p in everyone if p.pid in known and p.pid != root]
        known |= more


def marked(mark: str) -> list[Process]:
    """Processes with this mark, or with one that begins with it and "//"; this process is left out."""
    prefix = os.fsencode(f"{MARK}={mark}{SEPARATOR}")
    if system.is_linux():
        whole = os.fsencode(f"{MARK}={mark}\0")
        environments = {p.pid: _environment(p.pid) + b"\0" for p in running()}
        found = {pid for pid, entries in environments.items() if prefix in entries or whole in entries}
    else:
        listing = subprocess.run(["ps", "-Eww", "-axo", "pid=,command="], capture_output=True, check=False).stdout
        found = {int(line.split()[0]) for line in listing.splitlines() if prefix in line}
    return [p for p in running() if p.pid in found and p.pid != os.getpid()]


def kill_all(find: Callable[[], list[Process]], seconds: float = 10.0) -> int:
    """Kill what `find` returns, again and again until it returns nothing; how many there were.

    They are stopped before they are killed, so that none can fork while another dies. Raises TimeoutError when some
    are there after `seconds`.
    """
    until = time.monotonic() + seconds
    seen: set[int] = set()
    while found := find():
        if time.monotonic() > until:
            raise TimeoutError(f"processes {sorted(p.pid for p in found)} cannot be killed")
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in found:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(process.pid, number)
        for process in found:
            with suppress(ChildProcessError):  # an orphan that came to us is ours to bury
                os.waitpid(process.pid, os.WNOHANG)
        seen |= {p.pid for p in found}
        time.sleep(0.01)
    return len(seen)


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # ended, or another user's
        return b""


def _from_ps() -> list[Process]:
    # macOS's `sess` is an address; the process group is the nearest thing to it.
    listing = subprocess.run(
        ["ps", "-axo", "pid=,ppid=,pgid=,rss=,stat="], capture_output=True, text=True, check=False
    ).stdout
    rows = [line.split() for line in listing.splitlines()]
    return [Process(int(r[0]), int(r[1]), int(r[2]), int(r[3]) * 1024) for r in rows if len(r) > 4 and r[4][0] != "Z"]
