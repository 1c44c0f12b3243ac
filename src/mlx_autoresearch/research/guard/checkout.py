"""The user's checkout: what differs in it once anything has been changed, by size, mode, inode and change time.

No content is read, so that a big checkout costs a look at each file. The change time cannot be set back. Git's index is
not believed: a doctored one would hide an edited file. Files that git ignores are not watched.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.machine.git import git

_SETTINGS = ("config", "config.worktree")
_GIT_FILES = ("hooks", "info", "objects/info/alternates", "objects/info/http-alternates")


def identity(path: Path, *, content: bool = True) -> str:
    """content: also its size and change time, which nobody can set back; a folder's change with its files'."""
    try:
        stat = path.lstat()
    except OSError:
        return "gone"
    return f"{stat.st_mode} {stat.st_ino}" + (f" {stat.st_size} {stat.st_ctime_ns}" if content else "")


def checkout_state(repository: Path, home: Path, tag: str) -> dict[str, str]:
    """HEAD, branches and tags, settings, hooks, index and files; without the search's own: its home and its refs.

    Raises UserError when git fails: then nobody can say that nothing changed.
    """
    try:
        refs = git(["for-each-ref", "--format=%(refname) %(objectname) %(symref)"], repository).splitlines()
        own = (f"refs/heads/research/{tag} ", f"refs/research/{tag}/")
        state = dict(line.split(" ", 1) for line in refs if not line.startswith(own))
        state["HEAD"] = git(["rev-parse", "HEAD", "--symbolic-full-name", "HEAD"], repository)
        worktrees = git(["worktree", "list", "--porcelain"], repository).splitlines()
        state["git's worktrees"] = "\n".join(line for line in worktrees if line.startswith("worktree "))
        state["git settings"] = git(["config", "--local", "--includes", "--list"], repository)
        folders = git(["rev-parse", "--path-format=absolute", "--git-dir", "--git-common-dir"], repository)
        index = git(["ls-files", "-z", "--stage", "-v"], repository)
        files = git(["ls-files", "-z", "--cached", "--others", "--exclude-standard"], repository)
    except UserError as error:
        raise UserError(f"cannot tell whether the checkout has changed: {error}") from None
    state["git's index"] = hashlib.sha256(index.encode(errors="surrogateescape")).hexdigest()
    for folder in dict.fromkeys(folders.splitlines()):
        state["git settings"] += "".join(identity(Path(folder, name)) for name in _SETTINGS)
        for name in _GIT_FILES:
            for path in _below(Path(folder, name)):
                state[f".git/{path.relative_to(folder)}"] = identity(path)
    inside = _inside(home, repository)
    for name in files.split("\0"):
        if name and not (inside and f"{name}/".startswith(inside)):
            for path in _below(repository / name):
                state[str(path.relative_to(repository))] = identity(path)
    return state


def _inside(home: Path, repository: Path) -> str | None:
    """Where in the checkout the home is, as git writes it, with a slash at the end; None where it is elsewhere."""
    home, repository = home.parent.resolve() / home.name, repository.resolve()
    return f"{home.relative_to(repository).as_posix()}/" if home.is_relative_to(repository) else None


def _below(path: Path) -> Iterator[Path]:
    """A file or link, or all in a folder; git lists one that is a repository of its own as a whole."""
    if path.is_symlink() or not path.is_dir():
        yield path
        return
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            yield Path(folder, name)
