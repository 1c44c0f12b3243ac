"""Landlock: a Linux process gives up, for itself and all its descendants, writing outside some folders.

The kernel's interface is in linux/landlock.h and Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from mlx_autoresearch.machine import system

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # system calls; the same on every architecture
_ASK_VERSION, _PATH_BENEATH, _PR_SET_NO_NEW_PRIVS = 1, 1, 38
_WRITE_FILE, _TRUNCATE, _REFER = 1 << 1, 1 << 14, 1 << 13
_REMOVE_AND_MAKE = sum(1 << bit for bit in range(4, 13))  # REMOVE_DIR ... MAKE_SYM
_NETWORK = 0b11  # BIND_TCP, CONNECT_TCP
_SCOPE = 0b11  # no abstract sockets of, no signals to processes outside


def version() -> int:
    """The version of the kernel's Landlock, 0 where there is none."""
    return _kernels_version() if system.is_linux() else 0


def confine(writable: Iterable[str | Path], *, network: bool) -> None:
    """Allow writing beneath `writable` and to existing devices only; without `network`, no TCP either.

    From version 6 on also no signals to processes outside. Raises OSError when the kernel refuses.
    """
    write = _WRITE_FILE | _REMOVE_AND_MAKE
    write |= _REFER if version() >= 2 else 0
    write |= _TRUNCATE if version() >= 3 else 0
    ports = _NETWORK if version() >= 4 and not network else 0
    scope = _SCOPE if version() >= 6 else 0
    size = 24 if version() >= 6 else 16 if version() >= 4 else 8
    attributes = struct.pack("=QQQ", write, ports, scope)[:size]
    ruleset = _checked(_libc().syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0)))
    try:
        for path, allowed in [*((p, write) for p in writable), ("/dev", write & (_WRITE_FILE | _TRUNCATE))]:
            folder = os.open(path, getattr(os, "O_PATH", 0) | os.O_CLOEXEC)
            try:
                rule = struct.pack(
                    "=Qi", allowed if Path(path).is_dir() else allowed & (_WRITE_FILE | _TRUNCATE), folder
                )
                _checked(_libc().syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, ctypes.c_uint32(0)))
            finally:
                os.close(folder)
        _checked(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _checked(_libc().syscall(_RESTRICT_SELF, ruleset, ctypes.c_uint32(0)))
    finally:
        os.close(ruleset)


@lru_cache
def _kernels_version() -> int:
    return max(0, _libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_ASK_VERSION)))


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"Landlock: {os.strerror(error)}")
    return result


@lru_cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
