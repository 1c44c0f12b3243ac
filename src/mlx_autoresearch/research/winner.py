"""A search's winner: which experiment it is, its commit and its configuration. Needs no MLX."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlx_autoresearch.config.load import load_config
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.ledger.files import LEDGER
from mlx_autoresearch.ledger.ledger import Ledger, Record
from mlx_autoresearch.machine.files import write_atomically
from mlx_autoresearch.machine.git import git
from mlx_autoresearch.training.files import CONFIG

from .editable import EXPERIMENT
from .settings import tag_of
from .workspace import Workspace, repository_of_search

_BEST = "best"  # in a home: what is made of the winner


@dataclass(frozen=True)
class Winner:
    """The best experiment of the search `tag` in `home`, in the repository that it belongs to.

    baseline: the starting point's record.
    """

    home: Path
    repository: Path
    tag: str
    record: Record
    baseline: Record | None

    @classmethod
    def of(cls, home: str | Path) -> Winner:
        """Raises UserError when nothing has been measured yet, or the repository is gone."""
        home = Path(home).absolute()
        ledger = Ledger(home / LEDGER)
        record = ledger.best()
        if record is None:
            raise UserError(f"{home} has no kept experiment yet: `mlx-autoresearch research start` makes one")
        baseline = next((r for r in ledger.records() if r.event == "baseline"), None)
        tag = tag_of(home)
        return cls(home, repository_of_search(home, tag), tag, record, baseline)

    @property
    def folder(self) -> Path:
        """Where what is made of the winner is kept."""
        return self.home / _BEST

    @property
    def workspace(self) -> Workspace:
        """The search's branch."""
        return Workspace(self.repository, self.home, self.tag)

    def check_out(self, folder: str | Path, branch: str | None = None) -> Path:
        """A worktree of the repository at the winner's commit in `folder`, which must not exist; on a new `branch`,
        where given. Raises UserError when git refuses.
        """
        folder = Path(folder).absolute()
        if folder.exists():
            raise UserError(f"{folder} exists already: choose another folder")
        how = ["-b", branch] if branch else ["--detach"]
        git(["worktree", "add", "--quiet", *how, str(folder), self.record.commit], self.repository)
        return folder

    def require_code(self, *records: Record) -> None:
        """Raise UserError when this version cannot run the code of one of these records, or of the winner."""
        for record in records or (self.record,):
            if not self.workspace.has_code(record.commit):
                raise UserError(
                    f"experiment {record.number} is of an earlier version of mlx_autoresearch, whose code this one "
                    "cannot run: make a worktree of it with --checkout FOLDER, and use that version there"
                )

    def config(self, overrides: Sequence[str] = ()) -> Config:
        """The winner's configuration, with `section.key=value` settings over it."""
        text = self.workspace.read(self.record.commit, EXPERIMENT)
        if text is None:
            raise UserError(f"commit {self.record.commit[:10]} has no {EXPERIMENT}: it is of no search")
        path = self.folder / CONFIG
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.decode())
        return load_config(path, overrides)

    @contextmanager
    def snapshot(self, record: Record) -> Iterator[Path]:
        """The editable code of a record in a folder, while it is needed."""
        folder = self.folder / f".{record.number:04d}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            self.workspace.snapshot(record.commit, folder)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
