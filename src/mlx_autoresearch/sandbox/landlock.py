"""Landlock: a Linux process gives up, for itself and all its descendants, files other than those that it is given.

The kernel's interface is in linux/landlock.h and Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache

from mlx_autoresearch.machine import system

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # system calls; the same on every architecture
_ASK_VERSION, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = (1 << bit for bit in range(4))
_REMOVE_AND_MAKE = sum(1 << bit for bit in range(4, 13))  # REMOVE_DIR ... MAKE_SYM
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV  # the rest are a folder's
_NETWORK = 0b11  # BIND_TCP, CONNECT_TCP
_SCOPE = 0b11  # no abstract sockets of, no signals to processes outside


def version() -> int:
    """The version of the kernel's Landlock, 0 where there is none."""
    return _kernels_version() if system.is_linux() else 0


def confine(
    *,
    readable: Iterable[str],
    listed: Iterable[str],
    writable: Iterable[str],
    devices: Iterable[str],
    network: bool,
) -> None:
    """Keep this process from every other file, by version 1; without `network` from TCP, by version 4.

    readable: files and folders, for what is beneath them. listed: folders of which names alone are shown, all the way
    down. writable: files and folders; they are readable, too. devices: to be read, written and controlled.
    What is readable or a device and not there is left out. Names, sizes and times of files are not kept from.
    From version 6 on also no signals to processes outside. Needs no_new_privs. Raises OSError for a path in `writable`
    that is not there, and when the kernel refuses.
    """
    files = _READ | _WRITE_FILE | _REMOVE_AND_MAKE
    files |= _REFER if version() >= 2 else 0
    truncate = _TRUNCATE if version() >= 3 else 0
    control = _IOCTL_DEV if version() >= 5 else 0
    ports = _NETWORK if version() >= 4 and not network else 0
    scope = _SCOPE if version() >= 6 else 0
    size = 24 if version() >= 6 else 16 if version() >= 4 else 8
    files |= truncate
    device = _READ_FILE | _WRITE_FILE | truncate | control
    attributes = struct.pack("=QQQ", files | control, ports, scope)[:size]
    ruleset = _checked(_libc().syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0)))
    try:
        for path in writable:
            _allow(ruleset, path, files)
        for paths, access in ((readable, _READ), (listed, _READ_DIR), (devices, device)):
            for path in paths:
                with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                    _allow(ruleset, path, access)
        _checked(_libc().syscall(_RESTRICT_SELF, ruleset, ctypes.c_uint32(0)))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    descriptor = os.open(path, getattr(os, "O_PATH", 0) | os.O_CLOEXEC)
    try:
        access &= -1 if stat.S_ISDIR(os.fstat(descriptor).st_mode) else _OF_A_FILE
        if access:
            rule = struct.pack("=Qi", access, descriptor)
            _checked(_libc().syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, ctypes.c_uint32(0)))
    finally:
        os.close(descriptor)


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
