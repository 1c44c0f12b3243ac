"""Disks that take no more, because they are full, broken or read-only: told apart from other errors, and waited for."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .files import flush_to_disk

_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
_ROOM = 1 << 20  # bytes that a disk must take
_AGAIN_SECONDS = 3.0  # between two looks at a disk that takes no more
_TRIES = 10


def disk_error(error: BaseException | None) -> bool:
    """Whether `error`, or what it was raised from, says that a disk takes no more."""
    while error is not None:
        if (isinstance(error, OSError) and error.errno in _ERRORS) or says_full(str(error)):
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def says_full(text: str) -> bool:
    """Whether a program that printed this has found a full disk."""
    return any(os.strerror(number) in text for number in (errno.ENOSPC, errno.EDQUOT))


def trouble(folder: Path, room: int = _ROOM) -> str | None:
    """Why the disk of `folder` does not take `room` bytes, in one line with its path; None where it does.

    A small file is written, because a quota is not seen in any other way. A folder that may not be written is not the
    disk's trouble; where it is not there yet, the one above it is asked.
    """
    folder = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            data = os.urandom(_ROOM)
            while data:
                data = data[file.write(data) :]
            flush_to_disk(file.fileno())
        free = shutil.disk_usage(folder).free
        return f"{free:,} bytes free on {folder}, where {room:,} are needed" if free < room else None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return f"{_free(folder):,} bytes free on {folder}"
        return f"{folder} cannot be written: {error.strerror}" if error.errno in _ERRORS else None


class Disks:
    """The disks that a search writes to.

    folders: each with the bytes that it must take, asked anew every time. say: told what is waited for, once.
    """

    def __init__(self, folders: dict[Path, Callable[[], int]], say: Callable[[str], object] = print):
        self.say = say
        self._folders = folders

    def trouble(self) -> str | None:
        """What is wrong with the first one that takes no more, in one line; None where all do."""
        rooms: dict[int, tuple[Path, int]] = {}
        for folder, room in self._folders.items():
            disk = _existing(folder).stat().st_dev
            first, most = rooms.get(disk, (folder, 0))
            rooms[disk] = first, max(most, room())
        return next((found for folder, room in rooms.values() if (found := trouble(folder, room))), None)

    def wait(self) -> bool:
        """Return once every disk takes what is needed; whether that was waited for."""
        waited = False
        while found := self.trouble():
            if not waited:
                self.say(f"waiting: {found}; free some space, and it goes on by itself; Ctrl-C stops")
            waited = True
            time.sleep(_AGAIN_SECONDS)
        if waited:
            self.say("the disk takes data again: going on")
        return waited

    def surely(self, action: Callable[[], object]) -> None:
        """Do `action`, which may be done twice, until no disk ends it. Raises what else does; and a disk's error, where
        all disks take data, after a while.
        """
        tries = 0
        while True:
            try:
                action()
                return
            except Exception as error:
                if self.wait():
                    tries = 0
                elif not disk_error(error) or tries == _TRIES:
                    raise
                tries += 1
                time.sleep(_AGAIN_SECONDS)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it."""
    return next((path for path in (folder, *folder.parents) if path.is_dir()), Path("/"))


def _free(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0
