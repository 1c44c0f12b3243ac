"""The processes of this machine, by psutil, and what they take of memory."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache

import psutil

from . import system

# A process that has ended, a zombie, and one that this user may not look at: none of them is there for us.
_GONE = (psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError, PermissionError)


@dataclass(frozen=True)
class Process:
    """A running process, zombies left out. Equal are those that are the same process, whoever its parent is by now.

    handle: tells it from a later one of its number, also after the clock was set: psutil counts from the start of the
    machine.
    """

    pid: int
    parent: int = field(compare=False)
    session: int = field(compare=False)
    handle: psutil.Process


def running() -> list[Process]:
    """Every process that this user can see."""
    found = []
    for process in psutil.process_iter():
        with suppress(*_GONE), process.oneshot():
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(Process(process.pid, process.ppid(), os.getsid(process.pid), process))
    return found


def environment(process: Process) -> dict[str, str]:
    """Its environment variables; empty where it has ended or macOS hides them, as for programs of the system."""
    with suppress(*_GONE):
        return process.handle.environ()
    return {}


def send(process: Process, number: int) -> None:
    """Send a signal, unless the process has ended, another one has its number, or it is another user's."""
    with suppress(*_GONE):
        process.handle.send_signal(number)  # which looks whether the number is another's now


def memory(processes: Iterable[Process]) -> int:
    """Bytes of memory that these processes take.

    On Linux the sum of their resident sets. On macOS the sum of their physical footprints, as Activity Monitor shows
    them: the GPU shares the memory there, and its pages are in no resident set.
    """
    return sum(map(_footprint if system.is_macos() else _resident, (p.pid for p in processes)))


def _resident(pid: int) -> int:
    with suppress(*_GONE):
        return psutil.Process(pid).memory_info().rss
    return 0


class _Usage(ctypes.Structure):
    """`struct rusage_info_v0` of macOS's <sys/resource.h>."""

    _fields_ = (
        ("uuid", ctypes.c_uint8 * 16),
        *((name, ctypes.c_uint64) for name in ("user_time", "system_time", "idle_wakeups", "interrupt_wakeups")),
        *((name, ctypes.c_uint64) for name in ("pageins", "wired_size", "resident_size", "phys_footprint")),
        *((name, ctypes.c_uint64) for name in ("start_abstime", "exit_abstime")),
    )


_RUSAGE_INFO_V0 = 0


def _footprint(pid: int) -> int:
    usage = _Usage()
    failed = _libproc().proc_pid_rusage(pid, _RUSAGE_INFO_V0, ctypes.byref(usage))
    return 0 if failed else usage.phys_footprint


@lru_cache
def _libproc() -> ctypes.CDLL:
    return ctypes.CDLL(None)  # libproc is a part of libSystem, which every process has loaded
