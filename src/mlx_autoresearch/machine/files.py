"""Replacing files so that a reader, and a restart after a crash, finds the old content or the new, never a part."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A new path beside `path` to write to; it replaces `path` when the block ends, and is deleted if the block raises.

    durable: the new content is on the disk when this returns, so it survives a power cut. A cache needs no such care.
    The new name has the suffix of `path`: `mx.save_safetensors` would add a missing one. Raises OSError.
    """
    new = path.with_name(f".{os.getpid()}-{threading.get_native_id()}.{path.name}")
    new.unlink(missing_ok=True)  # a killed process left it, or somebody planted a link
    try:
        yield new
        if durable:
            _sync(new)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)


def write_atomically(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace the content of a file with `text`, UTF-8; see `replacing`."""
    with replacing(path, durable=durable) as new:
        new.write_text(text, encoding="utf-8")


def sync_folder(folder: Path) -> None:
    """Make the names of a folder's new files survive a power cut."""
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
