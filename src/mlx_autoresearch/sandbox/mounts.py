"""A Linux process gets a view of the file system in which all is read-only, but for what it may write.

Landlock does not keep from changing mode, owner, times and attributes of files; a mount that is read-only does. The
view is a user and a mount namespace: user_namespaces(7), mount_setattr(2). Many containers, and Ubuntu from 24.04 on,
do not allow one; then seccomp.py stands in.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from mlx_autoresearch.machine import system

_NEW_USER, _NEW_MOUNTS = 0x10000000, 0x00020000
_RECURSIVE, _PRIVATE = 1 << 14, 1 << 18  # of mount(2)
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442  # system calls; the same on every architecture
_HERE, _ALL_BELOW, _CLONE, _FROM_EMPTY_PATH = -100, 0x8000, 1, 4
_READ_ONLY = 1


def only_writable(paths: Iterable[str]) -> None:
    """Make all read-only for this process, which has one thread, but files and folders in `paths`.

    It has every capability afterwards, within its namespace: who does not want to undo this gives them up. Raises
    OSError where the system does not allow it; then this process is of no further use.
    """
    user, group = os.geteuid(), os.getegid()
    _checked(_libc().unshare(_NEW_USER | _NEW_MOUNTS), "unshare")
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    _checked(_libc().mount(None, b"/", None, ctypes.c_ulong(_RECURSIVE | _PRIVATE), None), "mount")
    places = sorted({os.path.realpath(path) for path in paths})  # outer folders before those within
    copies = [
        _call(_OPEN_TREE, place, _HERE, os.fsencode(place), _CLONE | _ALL_BELOW | os.O_CLOEXEC) for place in places
    ]
    try:
        read_only = struct.pack("=QQQQ", _READ_ONLY, 0, 0, 0)
        _call(_MOUNT_SETATTR, "/", _HERE, b"/", _ALL_BELOW, read_only, len(read_only))
        for copy, place in zip(copies, places, strict=True):
            _call(_MOVE_MOUNT, place, copy, b"", _HERE, os.fsencode(place), _FROM_EMPTY_PATH)
    finally:
        for copy in copies:
            os.close(copy)


@lru_cache
def obstacle() -> str | None:
    """Why there can be no such view here; None where there can. It is tried in a process of its own."""
    if not system.is_linux():
        return "namespaces are Linux's"
    with tempfile.TemporaryDirectory() as folder:
        trial = [sys.executable, "-P", "-m", "mlx_autoresearch.sandbox.mounts", folder]
        done = subprocess.run(trial, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else (done.stdout.strip() or "no namespaces")


def _call(number: int, about: str, *arguments: int | bytes) -> int:
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    return _checked(_libc().syscall(number, *words), about)


def _checked(result: int, about: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{about}: {os.strerror(ctypes.get_errno())}")
    return result


@lru_cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


if __name__ == "__main__":
    try:
        only_writable(sys.argv[1:])
        Path(sys.argv[1], "file").touch()
    except OSError as error:
        print(f"namespaces: {error.strerror}")
        sys.exit(1)
