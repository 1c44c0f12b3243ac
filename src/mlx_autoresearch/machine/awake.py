"""Keeps a Mac from sleeping while something runs: it would sleep in the middle of a night's search."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from . import system

# -i: no idle sleep; -s: none at all on mains power; -w: until this process has ended, however it ends. The display may
# sleep, on purpose: with it on, macOS may stop a GPU program that keeps it from being drawn.
_COMMAND = ("caffeinate", "-i", "-s", "-w")

_lock = threading.Lock()
_holders = 0
_running: subprocess.Popen[bytes] | None = None


@contextmanager
def awake(say: Callable[[str], object]) -> Iterator[None]:
    """Inside, a Mac does not sleep by itself; elsewhere than on macOS this does nothing.

    Within another one of the same process it does nothing either. `say` is told in one line that the Mac is kept awake,
    or a warning that it is not.
    """
    if not system.is_macos():
        yield
        return
    global _holders, _running
    with _lock:
        _holders += 1
        if _holders == 1:
            _running = _start(say)
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0 and _running is not None:
                _running.terminate()
                _running.wait()
                _running = None


def _start(say: Callable[[str], object]) -> subprocess.Popen[bytes] | None:
    try:
        process = subprocess.Popen(
            [*_COMMAND, str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # whoever reads our output must see its end when we end
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is ours: we may still be saving
        )
    except OSError as error:
        say(
            f"warning: cannot run caffeinate ({error.strerror}): when this Mac sleeps, all of this stops until it wakes"
        )
        return None
    say("keeping this Mac awake (caffeinate); the display may sleep")
    return process
