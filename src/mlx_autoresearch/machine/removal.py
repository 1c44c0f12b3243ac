"""Deleting what somebody else has left: folders of any depth, names of any length, protected ones."""

from __future__ import annotations

import fcntl
import os
import struct
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602  # Linux's FS_IOC_GETFLAGS and FS_IOC_SETFLAGS
_PROTECTED = 0x30  # FS_APPEND_FL and FS_IMMUTABLE_FL, which `chattr` sets


def remove(path: Path) -> None:
    """Delete whatever is at `path`: a folder with all that is in it, a link but not what it points to, or nothing."""
    if _is_folder(path):
        _delete_folder(path)
    else:
        with suppress(FileNotFoundError, NotADirectoryError):
            _surely(path.unlink, path)


def _delete_folder(path: Path) -> None:
    """Without recursion: a folder two levels down is moved up, so that no depth, and no path, is too long."""
    name, moved = uuid.uuid4().hex, 0
    _surely(lambda: path.chmod(0o700), path)
    while found := os.listdir(path):
        for entry in (path / other for other in found):
            if not _is_folder(entry):
                _surely(entry.unlink, entry, path)
                continue
            _surely(lambda entry=entry: entry.chmod(0o700), entry)
            for below in (entry / other for other in os.listdir(entry)):
                if _is_folder(below):
                    moved += 1
                    up = path / f"{name}-{moved}"
                    _surely(lambda below=below: below.chmod(0o700), below)
                    _surely(lambda below=below, up=up: below.rename(up), below, entry, path)
                else:
                    _surely(below.unlink, below, entry)
            _surely(entry.rmdir, entry, path)
    _surely(path.rmdir, path)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _surely(action: Callable[[], object], *paths: Path) -> None:
    """Do it; where that is not permitted, once more without the flags that protect `paths`."""
    try:
        action()
    except PermissionError:
        for path in paths:
            with suppress(OSError):
                _clear_flags(path)
        action()


def _clear_flags(path: Path) -> None:
    if (change := getattr(os, "lchflags", None)) is not None:  # macOS
        change(path, 0)
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        flags = struct.unpack("l", fcntl.ioctl(descriptor, _GET_FLAGS, struct.pack("l", 0)))[0]
        fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("l", flags & ~_PROTECTED))
    finally:
        os.close(descriptor)
