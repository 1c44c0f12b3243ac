"""Locks between processes; above all one training at a time on this machine.

A second training would take time from the first one's budget.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mlx_autoresearch.plain_text import one_line

from .files import write_atomically
from .paths import cache_dir


@contextmanager
def device_lock(say: Callable[[str], object]) -> Iterator[float]:
    """Hold this machine's device for one training; yields the seconds waited for it.

    Every process with the same cache folder takes turns. While another one holds the device, `say` is told so, once, in
    one line with the other's process id and command. The system frees the lock of a process that ends, however it ends.
    Where the cache folder cannot be written nothing can be locked: `say` is told, and the training goes on.
    """
    folder = cache_dir()
    lock, holder = FileLock(folder / "device.lock"), folder / "device.holder"
    waited = 0.0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = acquired(lock)
    except OSError as error:
        say(f"warning: cannot lock {lock.lock_file} ({error.strerror}): a run beside this one would slow it down")
        yield waited
        return
    if not held:
        say(f"waiting for another run on this machine to finish: {_read(holder)}")
        started = time.monotonic()
        lock.acquire()
        waited = time.monotonic() - started
    try:
        with suppress(OSError):  # it is for display only
            write_atomically(holder, _this_process(), durable=False)
        yield waited
    finally:
        with suppress(OSError):
            holder.unlink(missing_ok=True)
        lock.release()


def acquired(lock: FileLock) -> bool:
    """Take a lock without waiting for it; whether it was free. Raises OSError where its file cannot be written."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True


def is_free(path: Path) -> bool:
    """Whether no process, nor this one, holds the lock at `path` now. Writes nothing.

    Raises OSError where its file cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _this_process() -> str:
    """This process's id and command, without URLs: that of a storage may hold a password."""
    program = Path(sys.argv[0]).name
    words = [
        "mlx-autoresearch" if program == "__main__.py" else program,
        *(word for word in sys.argv[1:] if "://" not in word),
    ]
    return one_line(f"process {os.getpid()}, {shlex.join(words)}")


def _read(holder: Path) -> str:
    """What the holder says of itself. Another user may have written it: it is shown and never acted upon."""
    try:
        with holder.open(encoding="utf-8", errors="replace") as file:
            return one_line(file.read(1000)) or "it does not say which"
    except OSError:  # it has only just taken the lock
        return "it does not say which"
