"""A file that only this process writes: memory holds its content, and what is on the disk is never believed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mlx_autoresearch.machine.files import sync_folder, write_atomically


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

    def append(self, data: bytes) -> None:
        """Write `data` at the end; it is on the disk when this returns."""
        self.restore()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        with open(self.path, "ab", opener=lambda path, _: os.open(path, flags, 0o666)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if self.content is None:
            sync_folder(self.path.parent)
        self.content = (self.content or b"") + data

    def restore(self) -> bool:
        """Put the held content back where the disk has something else; whether it had."""
        if self._is_intact():
            return False
        if self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)
        if self.content is None:
            self.path.unlink(missing_ok=True)
            return True
        write_atomically(self.path, self.content)
        return True

    def _is_intact(self) -> bool:
        if self.content is None:
            return not os.path.lexists(self.path)
        try:
            return self.path.is_file() and not self.path.is_symlink() and self.path.read_bytes() == self.content
        except OSError:
            return False
