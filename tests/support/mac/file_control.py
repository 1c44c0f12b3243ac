"""macOS's `fcntl` commands on Linux: what they ask for is done by other means, and counted."""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from typing import Any

F_GETPATH, F_FULLFSYNC = 50, 51  # <sys/fcntl.h> of macOS
calls: Counter[int] = Counter()
_linux = fcntl.fcntl


def control(descriptor: Any, command: int, argument: Any = 0) -> Any:
    """In the place of `fcntl.fcntl`."""
    if command not in (F_GETPATH, F_FULLFSYNC):
        return _linux(descriptor, command, argument)
    calls[command] += 1
    number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
    if command == F_GETPATH:
        return os.fsencode(os.readlink(f"/proc/self/fd/{number}")).ljust(len(argument), b"\0")
    os.fsync(number)
    return 0


REPLACED = {"F_GETPATH": F_GETPATH, "F_FULLFSYNC": F_FULLFSYNC, "fcntl": control}


def install() -> None:
    """For the rest of this process."""
    for name, value in REPLACED.items():
        setattr(fcntl, name, value)
