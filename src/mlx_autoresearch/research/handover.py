"""What an agent has left in its folder, read by our own code: nothing there is run, followed or believed.

Every file is opened by its name in a folder that is open already, never through a link, and only where it is a regular
file: another could wait for ever, or act as a device does. Sizes and numbers are bounded, also of a file that grows
while it is read.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from mlx_autoresearch.plain_text import one_line

from .editable import CODE, EXPERIMENT, is_editable

REGULAR = ("100644", "100755")  # git's modes of files
LINK, SUBMODULE = "120000", "160000"
MOST_BYTES = 1_000_000  # of a file
MOST_CONFIG_BYTES = 100_000  # of the configuration
MOST_CHANGED_BYTES = 4_000_000  # of all changed files together
MOST_CHANGED = 200  # files
MOST_NEW_NAMES = 10_000  # in the folders that are looked into
LONGEST_PATH = 200  # characters; so that no folder lies too deep, either
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
# What nobody hands over on purpose: macOS, Windows, Python, patch and editors write it. Hidden files are left out, too.
_LITTER = ("__pycache__", "*.pyc", "*.pyo", "*~", "#*#", "*.orig", "*.rej", "*.swp", "Thumbs.db", "desktop.ini")
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Refused(Exception):
    """What was handed over is not taken; the message is one line that says why."""


@dataclass(frozen=True)
class Entry:
    """A file of a commit: git's mode, the blob's id and size in bytes; a submodule's size is -1."""

    mode: str
    id: str
    size: int


@dataclass(frozen=True)
class Handover:
    """files: the content of those that differ from the commit, by path; None: deleted. left_out: new files and folders
    where an experiment may have none, which change nothing.
    """

    files: dict[str, bytes | None]
    left_out: list[str]


def read_handover(folder: Path, commit: Mapping[str, Entry]) -> Handover:
    """What differs in `folder` from the files of a commit, by path. Raises Refused for what is not taken.

    Modes do not count. Folders outside the editable ones are looked into only where the commit has files in them.
    """
    reader = _Reader(commit)
    reader.read_folder(os.fspath(folder), None, "")
    files = reader.files | {path: None for path, entry in commit.items() if reader.lacks(path) and entry.size >= 0}
    _refuse_twins({path for path in commit if files.get(path, b"") is not None}, files)
    return Handover(files, reader.left_out)


class _Reader:
    """files: those that differ."""

    def __init__(self, commit: Mapping[str, Entry]):
        self.files: dict[str, bytes | None] = {}
        self.left_out: list[str] = []
        self._commit = commit
        self._folders = {above for path in commit for above in _folders_of(path)}
        self._seen: set[str] = set()
        self._bytes = self._new_names = 0

    def lacks(self, path: str) -> bool:
        """Whether this file of the commit was not there."""
        return path not in self._seen

    def read_folder(self, name: str, above: int | None, path: str) -> None:
        """path: of the folder `name` in the open folder `above`; "" for the agent's folder itself."""
        shown = _shown(path) if path else "the agent's folder"
        descriptor = _open(name, above, shown, os.O_DIRECTORY)
        try:
            for found in sorted(self._names(descriptor, path)):
                self._read(found, descriptor, f"{path}/{found}" if path else found)
        except OSError as error:
            raise Refused(f"{shown} cannot be read: {error.strerror}") from None
        finally:
            os.close(descriptor)

    def _names(self, folder: int, path: str) -> Iterator[str]:
        with os.scandir(folder) as entries:
            for entry in entries:
                below = f"{path}/{entry.name}" if path else entry.name
                if below not in self._commit and below not in self._folders:
                    self._new_names += 1
                    if self._new_names > MOST_NEW_NAMES:
                        raise Refused(f"more than {MOST_NEW_NAMES:,} new files")
                yield entry.name

    def _read(self, name: str, above: int, path: str) -> None:
        """Take one file or folder, or leave it out."""
        try:
            kind = os.stat(name, dir_fd=above, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return
        if path in self._folders:
            if not stat.S_ISDIR(kind):
                raise Refused(f"{_shown(path)} is not a folder")
            self.read_folder(name, above, path)
        elif path in self._commit:
            self._seen.add(path)
            self._compare(name, above, path, kind)
        elif _is_litter(name):
            return
        elif not is_editable(path) and path not in CODE:
            self.left_out.append(path)
        else:
            _check_name(path)
            if stat.S_ISDIR(kind):
                self.read_folder(name, above, path)
            else:
                self._take(path, _content(name, above, path, kind, 0))

    def _compare(self, name: str, above: int, path: str, kind: int) -> None:
        """Take a file of the commit where it differs."""
        entry = self._commit[path]
        if entry.mode == SUBMODULE:
            return
        if entry.mode == LINK:
            if not stat.S_ISLNK(kind) or _id(os.fsencode(os.readlink(name, dir_fd=above)), entry.id) != entry.id:
                raise Refused(f"{_shown(path)} may not be changed")
            return
        content = _content(name, above, path, kind, entry.size)
        if _id(content, entry.id) != entry.id:
            self._take(path, content)

    def _take(self, path: str, content: bytes) -> None:
        _check_size(path, len(content))
        self._bytes += len(content)
        self.files[path] = content
        if len(self.files) > MOST_CHANGED:
            raise Refused(f"more than {MOST_CHANGED} files are new or changed")
        if self._bytes > MOST_CHANGED_BYTES:
            raise Refused(f"the new and changed files are larger than {MOST_CHANGED_BYTES:,} bytes together")
        if is_editable(path) and not _is_text(content):
            raise Refused(f"{_shown(path)} is not UTF-8 text")


def _content(name: str, above: int, path: str, kind: int, size: int) -> bytes:
    """What is in a file; size: of the one in the commit, which may be larger than new ones."""
    if not stat.S_ISREG(kind):
        raise Refused(f"{_shown(path)} is not a regular file")
    descriptor = _open(name, above, _shown(path))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Refused(f"{_shown(path)} is not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(max(size, _most(path)) + 1)
    finally:
        os.close(descriptor)
    if len(content) != size:
        _check_size(path, len(content))
    return content


def _open(name: str, above: int | None, shown: str, more: int = 0) -> int:
    try:
        return os.open(name, _OPEN | more, dir_fd=above)
    except OSError as error:
        raise Refused(f"{shown} cannot be read: {error.strerror}") from None


def _most(path: str) -> int:
    return MOST_CONFIG_BYTES if path == EXPERIMENT else MOST_BYTES


def _check_size(path: str, size: int) -> None:
    if size > _most(path):
        raise Refused(f"{_shown(path)} is larger than {_most(path):,} bytes")


def _check_name(path: str) -> None:
    """Of a new file or folder: a name that every file system and git take, and that is seen as it is."""
    if not _NAME.fullmatch(path.rpartition("/")[2]):
        raise Refused(f"{_shown(path)} may not have this name: letters, digits, and _ . + - but not at its start")
    if len(path) > LONGEST_PATH:
        raise Refused(f"{_shown(path)} has a path of more than {LONGEST_PATH} characters")


def _refuse_twins(kept: set[str], files: Mapping[str, bytes | None]) -> None:
    """Two names that differ in upper and lower case only are one file on a Mac."""
    new = [path for path, content in files.items() if content is not None and path not in kept]
    spelled = {part.lower(): part for path in kept for part in (path, *_folders_of(path))}
    for path in new:
        for part in (path, *_folders_of(path)):
            if (other := spelled.setdefault(part.lower(), part)) != part:
                raise Refused(f"{_shown(part)} and {_shown(other)} differ in upper and lower case only")


def _folders_of(path: str) -> Iterator[str]:
    return (path[: match.start()] for match in re.finditer("/", path))


def _is_litter(name: str) -> bool:
    return name.startswith(".") or any(fnmatchcase(name, pattern) for pattern in _LITTER)


def _is_text(content: bytes) -> bool:
    try:
        return "\0" not in content.decode("utf-8")
    except UnicodeDecodeError:
        return False


def _id(content: bytes, like: str) -> str:
    """Git's id of a blob, by the same hash as the id `like`."""
    digest = hashlib.sha1 if len(like) == 40 else hashlib.sha256
    return digest(b"blob %d\0" % len(content) + content).hexdigest()


def _shown(path: str) -> str:
    return one_line(path, 120)
