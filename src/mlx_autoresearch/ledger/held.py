"""Files and folders that only this process writes: memory holds what they are, and the disk is never believed."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from mlx_autoresearch.machine.files import flush_to_disk, naming, sync, write_atomically
from mlx_autoresearch.machine.removal import remove as remove


class HeldFile:
    """The content of `path` as this process read or wrote it last; None where there is no file."""

    def __init__(self, path: Path):
        self.path = path
        self.content: bytes | None = None

    def read(self) -> bytes:
        """Take what is on the disk for true, from now on; b"" where there is no file."""
        try:
            self.content = self.path.read_bytes()
        except FileNotFoundError:
            self.content = None
        return self.content or b""

    def write(self, data: bytes) -> None:
        """Replace the content, and whatever is in the file's place. Raises OSError; then nothing has happened."""
        self._replace(data)
        self.content = data

    def append(self, data: bytes) -> None:
        """Write `data` at the end; it is on the disk when this returns. Raises OSError; then nothing has happened."""
        self.restore()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        with naming(self.path), open(self.path, "ab", 0, opener=lambda path, _: os.open(path, flags, 0o666)) as file:
            try:
                left = data
                while left:
                    left = left[file.write(left) :]
                flush_to_disk(file.fileno())
                if self.content is None:
                    sync(self.path.parent)
            except OSError:
                with suppress(OSError):  # the next `restore` does it
                    file.truncate(len(self.content or b""))
                raise
        self.content = (self.content or b"") + data

    def restore(self) -> bool:
        """Put the held content back where the disk has something else; whether it had."""
        if self._is_intact():
            return False
        self._replace(self.content)
        return True

    def _replace(self, content: bytes | None) -> None:
        make_folder(self.path.parent)
        if content is None or not self.path.is_file():
            remove(self.path)
        if content is not None:
            write_atomically(self.path, content)

    def _is_intact(self) -> bool:
        if self.content is None:
            return not os.path.lexists(self.path)
        try:
            return self.path.is_file() and not self.path.is_symlink() and self.path.read_bytes() == self.content
        except OSError:
            return False


class HeldFolder:
    """A folder, or a link to one, as it was when this object was made; what is in it is not held."""

    def __init__(self, path: Path):
        self.path = path
        self._linked_to = path.readlink() if path.is_symlink() else None
        self._mode = stat.S_IMODE(path.stat().st_mode)

    def restore(self) -> bool:
        """Make it a folder again, with its mode, where it is not what it was; whether it was not."""
        if self._is_intact():
            return False
        link = self.path.readlink() if self.path.is_symlink() else None
        if link != self._linked_to or not self.path.is_dir():
            remove(self.path)
            if self._linked_to is not None and (self.path.parent / self._linked_to).is_dir():
                self.path.symlink_to(self._linked_to)
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(self._mode)
        return True

    def _is_intact(self) -> bool:
        try:
            link = self.path.readlink() if self.path.is_symlink() else None
            found = self.path.stat()
        except OSError:
            return False
        return link == self._linked_to and stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == self._mode


def make_folder(path: Path) -> None:
    """Make a folder, with its parents; a file or a dangling link in its place is deleted first. A link to one stays."""
    if not path.is_dir():
        remove(path)
        path.mkdir(parents=True, exist_ok=True)


def make_own_folder(path: Path) -> None:
    """As `make_folder`, but a link is deleted, too: whoever made it would decide where we write."""
    if path.is_symlink():
        path.unlink()
    make_folder(path)
