"""A search's own branch in the user's repository: one commit an experiment; kept ones advance the branch.

Git sees the repository's objects and refs only (`plumbing`), never a folder that an agent has had. A commit is made
without moving the branch; `keep` moves it, after the ledger has the record.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.ledger.held import remove
from mlx_autoresearch.machine.git import attempt, beginning, git
from mlx_autoresearch.trials.overlay import PACKAGE

from .code_size import code_size
from .editable import CODE, EXPERIMENT
from .handover import REGULAR, Handover, Refused, read_handover
from .objects import Objects

MOST_DIFF = 1_000_000  # bytes of a diff that are kept
_INDEX = ".index"  # in a home: a folder for git's index, while a commit is made


@dataclass(frozen=True)
class Change:
    """A difference between two commits: paths by git's status letter, and lines in and out."""

    status: dict[str, str]
    insertions: int
    deletions: int


NO_CHANGE = Change({}, 0, 0)


class Workspace:
    """The branch research/`tag` in the repository at `repository`, and the folder `home`/worktree for agents."""

    def __init__(self, repository: Path, home: Path, tag: str, mark: str = ""):
        """mark: goes into git's environment; see `processes.marked`."""
        self.repository, self.tag = repository, tag
        self.path = home.resolve() / "worktree"  # as git wrote it down for earlier versions
        self.branch = f"refs/heads/research/{tag}"
        git_dir = git(["rev-parse", "--path-format=absolute", "--git-common-dir"], repository).rstrip("\n")
        self._objects = Objects(Path(git_dir), home.absolute() / _INDEX, mark)
        self._git = self._objects.git

    def require_new(self) -> None:
        """Raise UserError when the branch exists."""
        if self._resolve(self.branch):
            raise UserError(
                f"the branch research/{self.tag} exists already: choose another tag, or delete it with "
                f"`git branch -D research/{self.tag}`"
            )

    def create(self, experiment: str) -> None:
        """A new branch at the user's HEAD, and on it a commit with `experiment` as the configuration."""
        start = self.commit(0, self._starting_point, self.head, {EXPERIMENT: experiment.encode()})
        self._git("update-ref", self.branch, start, "0" * len(start))

    def is_at_start(self) -> bool:
        """Whether the branch has no commit of an experiment: it is as `create` has made it, or there is none."""
        tip = self._resolve(self.branch)
        if tip is None:
            return True
        _, _, message = self._git("cat-file", "commit", tip).partition(b"\n\n")
        return message.decode(errors="replace").strip() == self._starting_point

    @property
    def _starting_point(self) -> str:
        return f"research {self.tag}: the starting point"

    def discard(self) -> None:
        """Take away the agents' folder, branch and refs."""
        self.clear()
        own = self._git("for-each-ref", "--format=%(refname)", self.branch, f"refs/research/{self.tag}/")
        for ref in own.decode().split():
            self._git("update-ref", "-d", ref)

    def unlock(self) -> None:
        """Remove what a git that was killed left: locks of our own refs."""
        own = (self._objects.git_dir / "refs/research" / self.tag).glob("*.lock")
        for lock in (self._objects.git_dir / f"{self.branch}.lock", *own):
            remove(lock)

    def clear(self) -> None:
        """Remove the agents' folder. Of a search of an earlier version it was a worktree, which git then forgets."""
        remove(self.path)
        remove(self._objects.index)
        for worktree in (self._objects.git_dir / "worktrees").glob("*"):
            with suppress(OSError):
                place = Path(os.fsdecode((worktree / "gitdir").read_bytes().strip()))
                if (worktree / "HEAD").read_bytes() == f"ref: {self.branch}\n".encode() and not os.path.lexists(place):
                    remove(worktree)

    @property
    def head(self) -> str:
        """The commit that the user's checkout stands on."""
        return git(["rev-parse", "--verify", "HEAD^{commit}"], self.repository).strip()

    @property
    def best(self) -> str:
        """The commit that the branch points at."""
        commit = self._resolve(self.branch)
        if commit is None:
            raise UserError(f"the branch research/{self.tag} is gone: restore it, or start a new search")
        return commit

    @contextmanager
    def laid_out(self, commit: str) -> Iterator[None]:
        """Meanwhile `path` holds a commit's files, and a repository of its own, for an agent; gone afterwards."""
        remove(self.path)
        try:
            self._objects.write(self._objects.files(commit), self.path)
            self._objects.make_repository(commit, self.path)
            yield
        finally:
            remove(self.path)

    def handover(self, commit: str) -> Handover:
        """What an agent has changed of a commit that was laid out. Raises Refused."""
        return read_handover(self.path, self._objects.files(commit))

    def patched(self, parent: str, patch: str) -> dict[str, bytes | None]:
        """The files that a patch changes of a commit; None: deleted. Raises Refused when it cannot be applied."""
        tree = self._objects.patched(parent, patch.encode())
        status, files = self._status(parent, tree), self._objects.files(tree)
        for path in status.keys() & files.keys():
            if files[path].mode not in REGULAR:
                raise Refused(f"{path} is not a regular file")
        contents = self._objects.contents(files[path].id for path in status if path in files)
        return {path: contents[files[path].id] if path in files else None for path in status}

    def commit(self, number: int, message: str, parent: str, files: Mapping[str, bytes | None]) -> str:
        """A commit on `parent` with other files in their places (None: deleted), kept alive by a ref of its own; the
        branch stays where it is.
        """
        tree = self._objects.tree(parent, files)
        commit = self._git("commit-tree", tree, "-p", parent, stdin=message.encode(errors="replace")).decode().strip()
        self._update_ref(self._ref(number), commit)
        return commit

    def keep(self, commit: str) -> None:
        """Move the branch to a commit."""
        self._update_ref(self.branch, commit)

    def forget(self, number: int) -> None:
        """Drop the ref of an experiment that was not decided."""
        self._git("update-ref", "--no-deref", "-d", self._ref(number))

    def change(self, parent: str, commit: str) -> Change:
        """What `commit` changes."""
        counts = [0, 0]
        for line in self._git("diff-tree", "-r", "-z", "--no-renames", "--numstat", parent, commit).split(b"\0"):
            if line:
                for i, count in enumerate(line.split(b"\t", 2)[:2]):
                    counts[i] += int(count) if count != b"-" else 0
        return Change(self._status(parent, commit), *counts)

    def has_less_code(self, parent: str, commit: str, change: Change) -> bool:
        """Whether the files that `change` names, but for the configuration, hold less code at `commit`."""
        paths = [path for path in change.status if path != EXPERIMENT]
        before, after = (sum(code_size(path, self.read(c, path)) for path in paths) for c in (parent, commit))
        return after < before

    def diff(self, parent: str, commit: str) -> str:
        """The patch, as text; of a long one the beginning, and a line that says so."""
        options = ["-p", "-M", "--no-color", "--no-ext-diff", "--no-textconv"]
        text = beginning(
            self._objects.command("diff-tree", *options, parent, commit), self._objects.environment, MOST_DIFF + 1
        )
        more = f"\n[... the diff is longer than {MOST_DIFF:,} bytes]\n" if len(text) > MOST_DIFF else ""
        return text[:MOST_DIFF].decode(errors="replace") + more

    def read(self, commit: str, path: str) -> bytes | None:
        """A file's content at a commit; None when it is not there. Raises UserError when the commit is not."""
        entry = self._objects.files(commit, path).get(path)
        return self._objects.contents([entry.id])[entry.id] if entry and entry.size >= 0 else None

    def has_code(self, commit: str) -> bool:
        """Whether a commit has a recipe where this version has it; commits of earlier versions have not."""
        return bool(self._objects.files(commit, CODE[0]))

    def snapshot(self, commit: str, folder: Path) -> None:
        """Write the editable code of a commit to a new folder, out of reach of agents.

        Raises UserError for a commit of a version that had its code elsewhere, and for code that is no regular file.
        """
        files = self._objects.files(commit, *CODE)
        if not any(path.startswith(f"{CODE[0]}/") for path in files):
            raise UserError(
                f"commit {commit[:10]} has no {CODE[0]}: it is of an earlier version of mlx_autoresearch, whose code "
                "this one cannot run; check it out, and use that version there"
            )
        for path, entry in files.items():
            if entry.mode not in REGULAR:
                raise UserError(f"{path} is not a regular file at commit {commit[:10]}: replace it, and commit that")
        self._objects.write(files, folder)

    def _status(self, parent: str, commit: str) -> dict[str, str]:
        """Git's status letter of every path that differs."""
        printed = os.fsdecode(self._git("diff-tree", "-r", "-z", "--no-renames", "--name-status", parent, commit))
        return dict(zip(printed.split("\0")[1::2], printed.split("\0")[0::2], strict=False))

    def _ref(self, number: int) -> str:
        return f"refs/research/{self.tag}/{number:04d}"

    def _resolve(self, ref: str) -> str | None:
        command = self._objects.command("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
        return attempt(command, self._objects.environment).stdout.decode().strip() or None

    def _update_ref(self, ref: str, commit: str) -> None:
        """Not through a symbolic ref that an agent has made of it: that would move a branch of the user."""
        self._git("update-ref", "--no-deref", ref, commit)


def repository_of(folder: Path) -> Path:
    """The git checkout that `folder` is in. Raises UserError when there is none."""
    try:
        return Path(git(["rev-parse", "--show-toplevel"], folder).strip())
    except UserError:
        raise UserError(f"{folder} is not in a git repository: run this in a clone of mlx_autoresearch") from None


def require_code(repository: Path) -> None:
    """Raise UserError when HEAD does not hold the code that experiments change."""
    for path in CODE:
        if not _tracked(repository, path):
            if _tracked(repository, f"src/{PACKAGE}"):
                raise UserError(
                    f"HEAD of {repository} has no folder {path}: it is of an earlier version of mlx_autoresearch; "
                    "check out this version, and start the search there"
                )
            raise UserError(f"{repository} has no committed {path}: run this in a clone of mlx_autoresearch")


def repository_of_search(home: Path, tag: str) -> Path:
    """The checkout with a search's branch: the one around its home or, for a home elsewhere, the one we are in.

    Raises UserError when neither has it.
    """
    for folder in (home.absolute().parent, Path.cwd()):
        with suppress(UserError):
            root = repository_of(folder)
            git(["rev-parse", "--verify", "--quiet", f"refs/heads/research/{tag}"], root)
            return root
    raise UserError(
        f"no branch research/{tag} here, to which {home} belongs: run this in the clone that the search was started in"
    )


def uncommitted(repository: Path) -> list[str]:
    """Editable files that differ between the user's checkout and HEAD, which a search starts from."""
    status = git(["status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", *CODE], repository)
    return [line[3:] for line in status.split("\0") if line]


def _tracked(root: Path, path: str) -> bool:
    return bool(git(["ls-tree", "--name-only", "HEAD", "--", path], root))
