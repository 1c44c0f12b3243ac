from __future__ import annotations

from pathlib import Path

import pytest

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.research.home import Search
from mlx_autoresearch.sandbox import landlock
from tests.support.laboratory import free_trial, git, make_search
from tests.support.vandals import (
    PATCH,
)


@pytest.fixture
def search(repository: Path, tiny: Config, monkeypatch: pytest.MonkeyPatch) -> Search:
    """Its first experiment changes code, its second one a learning rate, for the better."""
    monkeypatch.setattr(landlock, "version", lambda: 0)
    line = (repository / "src/mlx_autoresearch/recipe/schedule.py").read_text().split("\n")[0]
    git(repository, "commit", "-q", "--allow-empty", "-m", "second")
    git(repository, "checkout", "-q", "--detach")
    git(repository, "worktree", "add", "-q", str(repository.with_name("another")), "main")
    for name in ("notes/a", "inner/a"):
        (repository / name).parent.mkdir()
        (repository / name).write_text("mine, old\n")
    git(repository / "inner", "init", "-q")
    (repository / "link").symlink_to("notes")
    steps = [
        {"hypothesis": "code", "patch": PATCH.format(line=line)},
        {"hypothesis": "rate", "overrides": {"optimizer.matrix_lr": 0.001}},
    ]
    config = make_search(tiny, steps, seeds={"baseline": 2, "best": 1, "most": 2})
    return Search.start(config, repository / "runs", repository, run_trial=free_trial)
