"""A search's own worktree and branch: one commit an experiment; kept ones advance the branch.

Git is always told where its folder is, so that nothing an agent does to the worktree's `.git` decides where we write.
No hook is ever run. A commit is made without moving the branch; `keep` moves it, after the ledger has the record.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.ledger.held import make_folder, make_own_folder, remove
from mlx_autoresearch.machine.files import write_atomically
from mlx_autoresearch.machine.git import attempt, command, complaint, environment, git, output, run
from mlx_autoresearch.sandbox.processes import MARK
from mlx_autoresearch.trials.overlay import KERNELS, PACKAGE, RECIPE

from .code_size import code_size

EXPERIMENT = "research/experiment.yaml"  # the experiment's configuration, in the worktree
# What nobody writes on purpose: macOS's Finder and Python do.
_LITTER = [f":(exclude,glob)**/{name}" for name in (".DS_Store", "._*", "__pycache__/**", "*.pyc")]
CODE = [f"src/{PACKAGE}/{RECIPE}", KERNELS]


@dataclass(frozen=True)
class Change:
    """A difference between two commits: paths by git's status letter, their modes, and lines in and out."""

    status: dict[str, str]
    modes: dict[str, str]
    insertions: int
    deletions: int


NO_CHANGE = Change({}, {}, 0, 0)


class Workspace:
    """The worktree at `home`/worktree and the branch research/`tag`, in the repository at `repository`."""

    def __init__(self, repository: Path, home: Path, tag: str, mark: str = ""):
        """mark: goes into git's environment; see `processes.marked`."""
        self.repository, self.tag = repository, tag
        self.path = home.resolve() / "worktree"  # as git writes it down; the worktree itself may become a link
        self.branch = f"refs/heads/research/{tag}"
        self._mark = mark
        self._common = Path(git(["rev-parse", "--path-format=absolute", "--git-common-dir"], repository).strip())

    def require_new(self) -> None:
        """Raise UserError when the branch exists."""
        if self._resolve(self.branch):
            raise UserError(
                f"the branch research/{self.tag} exists already: choose another tag, or delete it with "
                f"`git branch -D research/{self.tag}`"
            )

    def create(self, experiment: str) -> None:
        """A new branch at HEAD, and on it a commit with `experiment` as the configuration."""
        head = git(["rev-parse", "--verify", "HEAD^{commit}"], self.repository).strip()
        git(["update-ref", self.branch, head, "0" * 40], self.repository)
        self._add_worktree()
        (self.path / EXPERIMENT).parent.mkdir(parents=True, exist_ok=True)
        (self.path / EXPERIMENT).write_text(experiment, encoding="utf-8")
        self.keep(self.commit(0, self._starting_point, head))

    def is_at_start(self) -> bool:
        """Whether the branch has no commit of an experiment: it is as `create` has made it, or there is none."""
        tip = self._resolve(self.branch)
        return tip is None or self._in_repository("show", "-s", "--format=%s", tip).strip() == self._starting_point

    @property
    def _starting_point(self) -> str:
        return f"research {self.tag}: the starting point"

    def discard(self) -> None:
        """Take away worktree, branch and refs."""
        shutil.rmtree(self.path, ignore_errors=True)
        git(["worktree", "prune"], self.repository)
        own = git(["for-each-ref", "--format=%(refname)", self.branch, f"refs/research/{self.tag}/"], self.repository)
        for ref in own.split():
            git(["update-ref", "-d", ref], self.repository)

    def unlock(self) -> None:
        """Remove what a git that was killed left: locks of our own refs and index."""
        ours = [self._common / f"{self.branch}.lock", *(self._common / "refs/research" / self.tag).glob("*.lock")]
        for lock in [*ours, self._admin / "index.lock", self._admin / "HEAD.lock"]:
            remove(lock)

    @property
    def best(self) -> str:
        """The commit that the branch points at."""
        commit = self._resolve(self.branch)
        if commit is None:
            raise UserError(f"the branch research/{self.tag} is gone: restore it, or start a new search")
        return commit

    def commit(self, number: int, message: str, parent: str) -> str:
        """A commit of the worktree as it is, kept alive by a ref of its own; the branch stays where it is.

        A worktree that is gone, or no folder, counts as an empty one.
        """
        make_own_folder(self.path)
        self._renew_admin()
        self._git("read-tree", parent)
        there = [p for p in CODE if (self.path / p).exists()]
        self._git("add", "--all", "--force", "--", EXPERIMENT, *there, *_LITTER)
        self._git("add", "--all", "--", ".", *_LITTER)
        tree = self._git("write-tree").strip()
        commit = self._git("commit-tree", tree, "-p", parent, "-m", message).strip()
        self._update_ref(self._ref(number), commit)
        return commit

    def keep(self, commit: str) -> None:
        """Move the branch and the worktree to a commit."""
        self._update_ref(self.branch, commit)
        self.reset(commit)

    def reset(self, commit: str | None = None) -> None:
        """Make the worktree the branch's commit, whatever has been done to it; or another commit, for a while."""
        if not (self._admin / "HEAD").is_file() or not self.path.is_dir():
            self._add_worktree()
        if self.path.is_symlink() or (self.path / ".git").is_dir():
            self._add_worktree()
        self._renew_admin()
        write_atomically(self.path / ".git", f"gitdir: {self._admin}\n")
        self._git("read-tree", "--reset", "-u", commit or self.best)
        self._git("checkout-index", "--all", "--force")
        self._git("clean", "-ffdxq")

    def forget(self, number: int) -> None:
        """Drop the ref of an experiment that was not decided."""
        self._in_repository("update-ref", "--no-deref", "-d", self._ref(number))

    def change(self, parent: str, commit: str) -> Change:
        """What `commit` changes."""
        raw = self._in_repository("diff-tree", "-r", "-z", "--no-renames", "--raw", parent, commit).split("\0")
        status, modes = {}, {}
        for entry, path in zip(raw[0::2], raw[1::2], strict=False):
            _, mode, _, _, letter = entry.split(" ")
            status[path], modes[path] = letter, mode
        counts = [0, 0]
        for line in self._in_repository("diff-tree", "-r", "-z", "--no-renames", "--numstat", parent, commit).split(
            "\0"
        ):
            if line:
                for i, count in enumerate(line.split("\t", 2)[:2]):
                    counts[i] += int(count) if count != "-" else 0
        return Change(status, modes, *counts)

    def has_less_code(self, parent: str, commit: str, change: Change) -> bool:
        """Whether the files that `change` names, but for the configuration, hold less code at `commit`."""
        paths = [path for path in change.status if path != EXPERIMENT]
        before, after = (sum(code_size(path, self.read(c, path)) for path in paths) for c in (parent, commit))
        return after < before

    def diff(self, parent: str, commit: str) -> str:
        """The patch, as text."""
        return self._in_repository(
            "diff-tree", "-p", "-M", "--no-color", "--no-ext-diff", "--no-textconv", parent, commit
        )

    def read(self, commit: str, path: str) -> bytes | None:
        """A file's content at a commit; None when it is not there. Raises UserError when the commit is not."""
        entry = self._in_repository("ls-tree", "-z", commit, "--", path).removesuffix("\0")
        if " blob " not in entry.partition("\t")[0]:
            return None
        blob = entry.partition("\t")[0].split(" ")[2]
        return output(command(["cat-file", "blob", blob], self.repository), self._environment())

    def apply(self, patch: str) -> str | None:
        """Apply a patch to the worktree; what is wrong with it, or None."""
        done = self._attempt("apply", "--recount", "--whitespace=nowarn", "-", stdin=patch.encode())
        return None if done.returncode == 0 else complaint(done)

    def has_code(self, commit: str) -> bool:
        """Whether a commit has a recipe where this version has it; commits of earlier versions have not."""
        return CODE[0] in self._code_in(commit)

    def snapshot(self, commit: str, folder: Path) -> None:
        """Write the editable code of a commit to a new folder, out of reach of whoever has the worktree.

        Raises UserError for a commit of a version that had its code elsewhere.
        """
        there = self._code_in(commit)
        if CODE[0] not in there:
            raise UserError(
                f"commit {commit[:10]} has no {CODE[0]}: it is of an earlier version of mlx_autoresearch, whose code "
                "this one cannot run; check it out, and use that version there"
            )
        archive = command(["archive", "--format=tar", commit, "--", *there], self.repository)
        with tarfile.open(fileobj=io.BytesIO(output(archive, self._environment()))) as tar:
            tar.extractall(folder, filter="data")

    def _code_in(self, commit: str) -> list[str]:
        """Those of `CODE` that a commit has."""
        return self._in_repository("ls-tree", "--name-only", commit, "--", *CODE).splitlines()

    def _ref(self, number: int) -> str:
        return f"refs/research/{self.tag}/{number:04d}"

    @property
    def _admin(self) -> Path:
        """Git's own folder of the worktree."""
        wanted = str(self.path / ".git")
        for entry in sorted((self._common / "worktrees").glob("*/gitdir")):
            if entry.is_file() and os.fsdecode(entry.read_bytes()).strip() == wanted:
                return entry.parent
        return self._common / "worktrees" / "none"

    def _renew_admin(self) -> None:
        """Write anew what an agent may have changed in git's own folder of the worktree; its index is empty then."""
        self.unlock()
        for name, content in (("HEAD", f"ref: {self.branch}\n"), ("commondir", "../..\n")):
            if not (self._admin / name).is_file():
                remove(self._admin / name)
            write_atomically(self._admin / name, content)  # git knows no worktree with half a HEAD
        remove(self._admin / "index")  # or a doctored one would hide what differs

    def _add_worktree(self) -> None:
        remove(self.path)
        make_folder(self._common / "worktrees")
        git(["worktree", "prune"], self.repository)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        name = self.branch.removeprefix("refs/heads/")
        git(["worktree", "add", "--quiet", "--force", "--force", str(self.path), name], self.repository)

    def _resolve(self, ref: str) -> str | None:
        done = attempt(
            command(["rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"], self.repository), environment()
        )
        return done.stdout.decode().strip() or None

    def _command(self, *arguments: str) -> list[str]:
        return command([f"--git-dir={self._admin}", f"--work-tree={self.path}", *arguments], self.path)

    def _environment(self) -> dict[str, str]:
        return environment(**{MARK: self._mark})

    def _update_ref(self, ref: str, commit: str) -> None:
        """Not through a symbolic ref that an agent has made of it: that would move a branch of the user."""
        self._in_repository("update-ref", "--no-deref", ref, commit)

    def _in_repository(self, *arguments: str) -> str:
        """Git without the worktree, which may have been moved, or be gone."""
        return run(command([*arguments], self.repository), self._environment())

    def _git(self, *arguments: str) -> str:
        return run(self._command(*arguments), self._environment())

    def _attempt(self, *arguments: str, stdin: bytes = b"") -> CompletedProcess[bytes]:
        return attempt(self._command(*arguments), self._environment(), stdin)


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
    status = git(["status", "--porcelain", "-z", "--no-renames", "--", *CODE], repository)
    return [line[3:] for line in status.split("\0") if line]


def _tracked(root: Path, path: str) -> bool:
    return bool(git(["ls-tree", "--name-only", "HEAD", "--", path], root))
