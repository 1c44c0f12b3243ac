"""A research's own worktree and branch: one commit an experiment, kept ones advance the branch.

Git is always told where its folder is, so that nothing an agent does to the worktree's `.git` decides where we write,
and no hook is ever run. A commit is made without moving the branch; `keep` moves it, after the ledger has the record.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .overlay import MODULES, PACKAGE, SUBPACKAGE
from .processes import MARK

EXPERIMENT = "research/experiment.yaml"  # the experiment's configuration, in the worktree
CODE = [*(f"src/{PACKAGE}/{name}.py" for name in MODULES), f"src/{PACKAGE}/{SUBPACKAGE}", "custom_kernels"]

_AUTHOR = {"NAME": "mlx-autoresearch", "EMAIL": "research@localhost"}
_IDENTITY = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in _AUTHOR.items()}
_SETTINGS = {
    "core.hooksPath": os.devnull,
    "commit.gpgSign": "false",
    "core.fsmonitor": "false",
    "gc.auto": "0",
    "worktree.useRelativePaths": "false",
}


@dataclass(frozen=True)
class Change:
    """A difference between two commits: paths by git's status letter, their modes, and lines in and out."""

    status: dict[str, str]
    modes: dict[str, str]
    insertions: int
    deletions: int
    code_insertions: int
    code_deletions: int


NO_CHANGE = Change({}, {}, 0, 0, 0, 0)


class Workspace:
    """The worktree at `home`/worktree and the branch research/`tag`, in the repository at `repository`."""

    def __init__(self, repository: Path, home: Path, tag: str, mark: str = ""):
        """mark: goes into git's environment; see `processes.marked`."""
        self.repository, self.tag = repository, tag
        self.path = home.resolve() / "worktree"  # as git writes it down; the worktree itself may become a link
        self.branch = f"refs/heads/research/{tag}"
        self._mark = mark
        self._common = Path(_git(["rev-parse", "--path-format=absolute", "--git-common-dir"], repository).strip())

    def require_new(self) -> None:
        """Raise UserError when the branch exists."""
        if self._resolve(self.branch):
            raise UserError(
                f"the branch research/{self.tag} exists already: choose another tag, or delete it with "
                f"`git branch -D research/{self.tag}`"
            )

    def create(self, experiment: str) -> None:
        """A new branch at HEAD, and on it a commit with `experiment` as the configuration."""
        head = _git(["rev-parse", "--verify", "HEAD^{commit}"], self.repository).strip()
        _git(["update-ref", self.branch, head, "0" * 40], self.repository)
        self._add_worktree()
        (self.path / EXPERIMENT).parent.mkdir(parents=True, exist_ok=True)
        (self.path / EXPERIMENT).write_text(experiment, encoding="utf-8")
        self.keep(self.commit(0, f"research {self.tag}: the starting point", head))

    def discard(self) -> None:
        """Take away worktree, branch and refs."""
        shutil.rmtree(self.path, ignore_errors=True)
        _git(["worktree", "prune"], self.repository)
        own = _git(["for-each-ref", "--format=%(refname)", self.branch, f"refs/research/{self.tag}/"], self.repository)
        for ref in own.split():
            _git(["update-ref", "-d", ref], self.repository)

    def unlock(self) -> None:
        """Remove what a git that was killed left: locks of our own refs and index."""
        ours = [self._common / f"{self.branch}.lock", *(self._common / "refs/research" / self.tag).glob("*.lock")]
        for lock in [*ours, self._admin / "index.lock", self._admin / "HEAD.lock"]:
            lock.unlink(missing_ok=True)

    @property
    def best(self) -> str:
        """The commit that the branch points at."""
        commit = self._resolve(self.branch)
        if commit is None:
            raise UserError(f"the branch research/{self.tag} is gone: restore it, or start a new research")
        return commit

    def commit(self, number: int, message: str, parent: str) -> str:
        """A commit of the worktree as it is, kept alive by a ref of its own; the branch stays where it is."""
        self._git("add", "--all", "--force", "--", EXPERIMENT, *[p for p in CODE if (self.path / p).exists()])
        self._git("add", "--all")
        tree = self._git("write-tree").strip()
        commit = self._git("commit-tree", tree, "-p", parent, "-m", message).strip()
        self._git("update-ref", self._ref(number), commit)
        return commit

    def keep(self, commit: str) -> None:
        """Move the branch and the worktree to a commit."""
        self._git("update-ref", self.branch, commit)
        self.reset()

    def reset(self, commit: str | None = None) -> None:
        """Make the worktree the branch's commit, whatever has been done to it; or another commit, for a while."""
        if not (self._admin / "HEAD").is_file() or not self.path.is_dir():
            self._add_worktree()
        if self.path.is_symlink() or (self.path / ".git").is_dir():
            self._add_worktree()
        self.unlock()
        (self._admin / "HEAD").write_text(f"ref: {self.branch}\n", encoding="utf-8")
        (self.path / ".git").unlink(missing_ok=True)
        (self.path / ".git").write_text(f"gitdir: {self._admin}\n", encoding="utf-8")
        (self._admin / "index").unlink(missing_ok=True)  # or a doctored one would hide what differs
        self._git("read-tree", "--reset", "-u", commit or self.best)
        self._git("checkout-index", "--all", "--force")
        self._git("clean", "-ffdxq")

    def forget(self, number: int) -> None:
        """Drop the ref of an experiment that was not decided."""
        self._git("update-ref", "-d", self._ref(number))

    def change(self, parent: str, commit: str) -> Change:
        """What `commit` changes."""
        raw = self._git("diff-tree", "-r", "-z", "--no-renames", "--raw", parent, commit).split("\0")
        status, modes = {}, {}
        for entry, path in zip(raw[0::2], raw[1::2], strict=False):
            _, mode, _, _, letter = entry.split(" ")
            status[path], modes[path] = letter, mode
        counts = [0, 0, 0, 0]
        for line in self._git("diff-tree", "-r", "-z", "--no-renames", "--numstat", parent, commit).split("\0"):
            if line:
                added, removed, path = line.split("\t", 2)
                for i, count in enumerate((added, removed)):
                    counts[i] += int(count) if count != "-" else 0
                    counts[i + 2] += int(count) if count != "-" and path != EXPERIMENT else 0
        return Change(status, modes, *counts)

    def diff(self, parent: str, commit: str) -> str:
        """The patch, as text."""
        return self._git("diff-tree", "-p", "-M", "--no-color", "--no-ext-diff", "--no-textconv", parent, commit)

    def read(self, commit: str, path: str) -> bytes | None:
        """A file's content at a commit; None when it is not there."""
        done = subprocess.run(self._command("cat-file", "blob", f"{commit}:{path}"), capture_output=True, check=False)
        return done.stdout if done.returncode == 0 else None

    def apply(self, patch: str) -> str | None:
        """Apply a patch to the worktree; what is wrong with it, or None."""
        done = subprocess.run(
            self._command("apply", "--recount", "--whitespace=nowarn", "-"),
            input=patch.encode(),
            capture_output=True,
            check=False,
            env=self._environment(),
            cwd=self.path,
        )
        return None if done.returncode == 0 else done.stderr.decode(errors="replace").strip().split("\n")[0]

    def snapshot(self, commit: str, folder: Path) -> None:
        """Write the editable code of a commit to a new folder, out of reach of whoever has the worktree."""
        there = [path for path in CODE if self._git("ls-tree", "--name-only", commit, "--", path)]
        command = self._command("archive", "--format=tar", commit, "--", *there)
        archive = subprocess.run(command, capture_output=True, check=True, env=self._environment()).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")

    def _ref(self, number: int) -> str:
        return f"refs/research/{self.tag}/{number:04d}"

    @property
    def _admin(self) -> Path:
        """Git's own folder of the worktree."""
        wanted = str(self.path / ".git")
        for entry in sorted((self._common / "worktrees").glob("*/gitdir")):
            if entry.read_text(encoding="utf-8").strip() == wanted:
                return entry.parent
        return self._common / "worktrees" / "none"

    def _add_worktree(self) -> None:
        if self.path.is_symlink() or self.path.is_file():
            self.path.unlink()
        shutil.rmtree(self.path, ignore_errors=True)
        _git(["worktree", "prune"], self.repository)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        name = self.branch.removeprefix("refs/heads/")
        _git(["worktree", "add", "--quiet", "--force", str(self.path), name], self.repository)

    def _resolve(self, ref: str) -> str | None:
        done = subprocess.run(
            _command(["rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"], self.repository),
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() or None

    def _command(self, *arguments: str) -> list[str]:
        return _command([f"--git-dir={self._admin}", f"--work-tree={self.path}", *arguments], self.path)

    def _environment(self) -> dict[str, str]:
        return {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | _IDENTITY | {MARK: self._mark}

    def _git(self, *arguments: str) -> str:
        return _run(self._command(*arguments), self._environment())


def repository_of(folder: Path) -> Path:
    """The checkout that `folder` is in. Raises UserError when there is none, or not one of this project."""
    try:
        root = Path(_git(["rev-parse", "--show-toplevel"], folder).strip())
    except UserError:
        raise UserError(f"{folder} is not in a git repository: run this in a clone of mlx_autoresearch") from None
    missing = [p for p in CODE[:2] if not _tracked(root, p)]
    if missing:
        raise UserError(f"{root} has no committed {missing[0]}: run this in a clone of mlx_autoresearch")
    return root


def repository_of_research(home: Path) -> Path:
    """The checkout with a research's branch: the one around its home or, for a home elsewhere, the one we are in."""
    for folder in (home.absolute().parent, Path.cwd()):
        with suppress(UserError):
            root = repository_of(folder)
            _git(["rev-parse", "--verify", "--quiet", f"refs/heads/research/{home.absolute().name}"], root)
            return root
    raise UserError(f"the checkout that {home} belongs to is not here: run this in the clone it was started in")


def uncommitted(repository: Path) -> list[str]:
    """Editable files that differ between the user's checkout and HEAD, which a research starts from."""
    status = _git(["status", "--porcelain", "-z", "--no-renames", "--", *CODE], repository)
    return [line[3:] for line in status.split("\0") if line]


def _tracked(root: Path, path: str) -> bool:
    return bool(_git(["ls-tree", "--name-only", "HEAD", "--", path], root))


def _command(arguments: list[str], folder: Path) -> list[str]:
    settings = [part for key, value in _SETTINGS.items() for part in ("-c", f"{key}={value}")]
    return ["git", "-C", str(folder), *settings, *arguments]


def _git(arguments: list[str], folder: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | _IDENTITY
    return _run(_command(arguments, folder), environment)


def _run(command: list[str], environment: dict[str, str]) -> str:
    try:
        # In a group of its own, so that the terminal's Ctrl-C is ours alone.
        done = subprocess.run(command, capture_output=True, check=True, env=environment, process_group=0)
    except FileNotFoundError:
        raise UserError("git is not installed, or not on PATH") from None
    except subprocess.CalledProcessError as error:
        first = error.stderr.decode(errors="replace").strip().split("\n")[0]  # the others are general advice
        raise UserError(f"git {' '.join(command[-3:])}: {first}") from None
    return done.stdout.decode(errors="surrogateescape")
