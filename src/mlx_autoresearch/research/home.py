"""A research on the disk: one home folder, one branch with its worktree, one ledger; made, opened and recovered here.

The ledger's append is the moment at which an experiment has happened. What is done before it leaves nothing that
`recover` does not clear away, and what follows from it (the branch, results.tsv) is made again from the ledger.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.ledger.ledger import Ledger, Record
from mlx_autoresearch.machine.files import write_atomically
from mlx_autoresearch.sandbox.processes import kill_all, marked

from .guard import rules
from .settings import ResearchConfig, load_research
from .workspace import EXPERIMENT, Workspace, repository_of_research

CONFIG, LEDGER, STARTING = "research.yaml", "ledger.jsonl", ".starting"


class Storage:
    """The research in `home`, whose branch belongs to the checkout at `repository`.

    mark: by which every process that the research starts is found again; see `processes.marked`.
    """

    def __init__(self, repository: Path, home: Path, config: ResearchConfig):
        self.repository, self.home, self.config = repository, home, config
        self.mark = f"research:{home.resolve()}"
        self.ledger = Ledger(home / LEDGER)
        self.workspace = Workspace(repository, home, config.tag, self.mark)

    @classmethod
    def create(cls, config: ResearchConfig, parent: Path, repository: Path) -> Storage:
        """A new research in `parent`/<tag>: its folder, branch and worktree. Raises UserError when there is one."""
        home = parent.absolute() / config.tag
        if (home / CONFIG).exists():
            raise UserError(f"{home} holds a research already: `research resume {config.tag}`, or choose another tag")
        if (home / LEDGER).exists():
            raise UserError(f"{home} has a ledger but no {CONFIG}: restore it, or choose another tag")
        workspace = Workspace(repository, home, config.tag)
        if (home / STARTING).is_file():  # of a start that was killed half way: nothing in it has happened
            workspace.discard()
            shutil.rmtree(home)
        if home.exists() and any(home.iterdir()):
            raise UserError(f"{home} exists and holds no research: choose another tag, or another --home")
        workspace.require_new()
        home.mkdir(parents=True, exist_ok=True)
        (home / STARTING).touch()
        workspace.create(config.start.to_yaml())
        write_atomically(home / CONFIG, config.to_yaml())
        (home / STARTING).unlink()
        return cls(repository, home, config)

    @classmethod
    def open(cls, home: Path) -> Storage:
        """An existing research. Raises UserError when `home` holds none."""
        home = home.absolute()
        if not (home / CONFIG).is_file():
            raise UserError(f"{home} holds no research; `research start` makes one")
        return cls(repository_of_research(home), home, load_research(home / CONFIG))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While this process runs the research. Raises UserError when another one does."""
        lock = FileLock(self.home / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"another process is running the research in {self.home}") from None
        try:
            yield
        finally:
            lock.release()

    def recover(self) -> None:
        """Whatever state the last process left: end its processes, forget what was not decided, restore the best."""
        kill_all(lambda: marked(self.mark))
        self.workspace.unlock()
        best = self.ledger.best()
        if best is not None:
            self.workspace.keep(best.commit)
        else:
            self.workspace.reset()
        for folder in (self.home / "experiments").glob("[0-9]*"):
            for scratch in [*folder.glob(".scratch-*"), folder / "code"]:
                shutil.rmtree(scratch, ignore_errors=True)
        number = self.next_number()
        self.workspace.forget(number)
        shutil.rmtree(self.folder(number), ignore_errors=True)
        self.ledger.write_tsv()

    @property
    def best(self) -> Record:
        """The kept record that the branch stands on; there is one once the baseline is in the ledger."""
        best = self.ledger.best()
        assert best is not None, "the baseline is kept"
        return best

    def config_at(self, commit: str) -> Config:
        """The experiment's configuration at a commit. Raises UserError when it is not valid."""
        return rules.read_config(self.workspace.read(commit, EXPERIMENT))

    def next_number(self) -> int:
        """The first number that the ledger has not decided; 0 is the baseline's."""
        return 1 + max((r.number for r in self.ledger.records()), default=-1)

    def folder(self, number: int) -> Path:
        """Where an experiment's files are."""
        return self.home / "experiments" / f"{number:04d}"
