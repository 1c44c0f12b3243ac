"""Replacing files so that a reader, and a restart after a crash, finds the old content or the new, never a part."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NOT_SUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY)  # of a network's or an old file system


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A new path beside `path` to write to; it replaces `path` when the block ends, and is deleted if the block raises.

    durable: the new content is on the disk when this returns, so it survives a power cut. A cache needs no such care.
    The new name has the suffix of `path`: `mx.save_safetensors` would add a missing one. It is of this process and
    thread alone. What processes that were killed have left of the same `path` is deleted first. Raises OSError.
    """
    _delete_abandoned(path)
    new = path.with_name(f".{os.getpid()}-{threading.get_native_id()}-{_host()}.{path.name}")
    new.unlink(missing_ok=True)  # somebody planted a link
    try:
        with naming(path):
            yield new
            if durable:
                sync(new)
            new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    if durable:
        sync(path.parent)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError that names no file, as a full disk's does, names `path`."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write_atomically(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Replace the content of a file with `content`, text as UTF-8; see `replacing`."""
    with replacing(path, durable=durable) as new:
        if isinstance(content, str):
            new.write_text(content, encoding="utf-8")
        else:
            new.write_bytes(content)


def flush_to_disk(descriptor: int) -> None:
    """Make what was written to an open file, or the names in an open folder, survive a power cut.

    On macOS `fsync` leaves it in the drive's own memory: its manual page names F_FULLFSYNC for this. Raises OSError.
    """
    full = getattr(fcntl, "F_FULLFSYNC", None)  # macOS alone has it
    if full is not None:
        try:
            fcntl.fcntl(descriptor, full)
            return
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise
    os.fsync(descriptor)


def sync(path: Path) -> None:
    """Make a file's content, or the names of a folder's new files, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        flush_to_disk(descriptor)
    finally:
        os.close(descriptor)


def _delete_abandoned(path: Path) -> None:
    """Delete what `replacing` began to write for `path` in processes of this machine that are no more."""
    name = re.compile(rf"\.(\d+)-\d+-{re.escape(_host())}\.{re.escape(path.name)}")
    for entry in os.listdir(path.parent):
        if (found := name.fullmatch(entry)) and not _runs(int(found[1])):
            path.with_name(entry).unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):  # OverflowError: no process has this number
        return False
    except PermissionError:  # another user's
        return True
    return True


def _host() -> str:
    """This machine's name, of which process numbers are: a shared folder may hold files of others."""
    return re.sub(r"\W", "_", socket.gethostname())


def is_hidden(path: Path, above: Path) -> bool:
    """Whether the name of `path`, or of a folder on the way to it from `above`, begins with a dot.

    macOS leaves such files anywhere: .DS_Store, and on foreign disks ._NAME beside NAME. Nothing of ours is hidden.
    """
    return any(part.startswith(".") for part in path.relative_to(above).parts)
