"""The files of a repository's commits, read and made in git's database: no work tree, filter, attribute or hook."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.ledger.held import remove
from mlx_autoresearch.machine.git import attempt, complaint, output, plumbing, without_settings
from mlx_autoresearch.sandbox.processes import MARK

from .handover import LINK, REGULAR, Entry, Refused


class Objects:
    """The database in `git_dir`. index: a folder in which git has an index while it needs one, never the user's.

    mark: goes into git's environment; see `processes.marked`.
    """

    def __init__(self, git_dir: Path, index: Path, mark: str):
        self.git_dir, self.index = git_dir, index
        self.environment = without_settings(**{MARK: mark, "GIT_INDEX_FILE": str(index / "index")})

    def git(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """What a git command on the database prints. Raises UserError when it fails."""
        return output(self.command(*arguments), self.environment, stdin)

    def command(self, *arguments: str) -> list[str]:
        """Its command line, for `environment`."""
        return plumbing(arguments, self.git_dir)

    def files(self, commit: str, *paths: str) -> dict[str, Entry]:
        """The files of a commit or tree, by path; those below `paths`, where given."""
        found = {}
        for line in os.fsdecode(self.git("ls-tree", "-r", "-l", "-z", commit, "--", *paths)).split("\0")[:-1]:
            about, _, path = line.partition("\t")
            mode, _, blob, size = about.split()
            if not {"", ".", "..", ".git"}.isdisjoint(path.lower().split("/")):
                raise UserError(f"commit {commit[:10]} holds a file named {path!r}, which git would never write")
            found[path] = Entry(mode, blob, int(size) if size != "-" else -1)
        return found

    def contents(self, blobs: Iterable[str]) -> dict[str, bytes]:
        """What is in blobs, by their ids."""
        wanted = list(dict.fromkeys(blobs))
        printed = self.git("cat-file", "--batch", stdin="".join(f"{blob}\n" for blob in wanted).encode())
        found, at = {}, 0
        for blob in wanted:
            start = printed.index(b"\n", at) + 1
            about = printed[at:start].split()
            if about[1:2] != [b"blob"]:
                raise UserError(f"git cat-file: {blob} is missing in {self.git_dir}")
            at = start + int(about[2])
            found[blob] = printed[start:at]
            at += 1
        return found

    def write(self, files: Mapping[str, Entry], folder: Path) -> None:
        """Write files of a commit, as they are in git, to a folder that nobody else has: links last, no submodules."""
        contents = self.contents(entry.id for entry in files.values() if entry.size >= 0)
        folder.mkdir(parents=True, exist_ok=True)
        for path, entry in sorted(files.items(), key=lambda item: item[1].mode == LINK):
            file = folder / path
            if entry.size < 0:
                file.mkdir(parents=True)
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            if entry.mode == LINK:
                file.symlink_to(os.fsdecode(contents[entry.id]))
                continue
            file.write_bytes(contents[entry.id])
            if entry.mode == REGULAR[1]:
                file.chmod(file.stat().st_mode | 0o111)

    def tree(self, parent: str, files: Mapping[str, bytes | None]) -> str:
        """The tree of `parent` with other files in their places (None: without them).

        A file keeps its mode, a new one is not executable.
        """
        modes = {path: entry.mode for path, entry in self.files(parent).items()}
        gone, there = [], []
        for path, content in files.items():
            if content is None:
                gone.append(f"0 {'0' * len(parent)}\t{path}\0")
            else:
                blob = self.git("hash-object", "-w", "--no-filters", "--stdin", stdin=content).decode().strip()
                there.append(f"{modes.get(path, REGULAR[0])} {blob}\t{path}\0")
        with self._index_of(parent):
            lines = os.fsencode("".join(gone + there))  # a file that goes may make room for a folder
            self.git("update-index", "-z", "--index-info", stdin=lines)
            return self.git("write-tree").decode().strip()

    def patched(self, parent: str, patch: bytes) -> str:
        """The tree of `parent` with a patch applied to it. Raises Refused."""
        with self._index_of(parent):
            command = self.command("apply", "--cached", "--recount", "--whitespace=nowarn", "-")
            done = attempt(command, self.environment, patch)
            if done.returncode:
                raise Refused(f"the patch does not apply: {complaint(done)}")
            return self.git("write-tree").decode().strip()

    @contextmanager
    def _index_of(self, commit: str) -> Iterator[None]:
        """Meanwhile the index holds the files of a commit."""
        remove(self.index)
        self.index.mkdir(parents=True)
        try:
            self.git("read-tree", commit)
            yield
        finally:
            remove(self.index)

    def make_repository(self, commit: str, folder: Path) -> None:
        """A repository in `folder` with one commit, of the same files; it shares nothing with this one."""
        tree = self.git("rev-parse", "--verify", f"{commit}^{{tree}}").decode().strip()
        pack = self.git("pack-objects", "--revs", "--stdout", "--quiet", "--window=0", stdin=tree.encode() + b"\n")
        hash_name = "sha1" if len(tree) == 40 else "sha256"
        output(["git", "init", "--quiet", "--template=", str(folder)], without_settings(GIT_DEFAULT_HASH=hash_name))
        own = Objects(folder / ".git", folder / ".git", self.environment[MARK])
        own.git("index-pack", "--stdin", stdin=pack)
        start = own.git("commit-tree", tree, stdin=b"the best so far\n").decode().strip()
        own.git("update-ref", "HEAD", start)
        own.git("read-tree", "HEAD")
