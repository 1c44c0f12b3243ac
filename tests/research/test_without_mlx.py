"""Without an MLX backend, as after a plain `pip install` on Linux: one line where MLX is needed, and work elsewhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.machine import system
from mlx_autoresearch.research.home import Search
from tests.support.laboratory import free_trial, make_search, run_search

COMMAND = """
import sys

class NoBackend:
    def find_spec(self, name, path=None, target=None):
        if name == "mlx.core" or name.startswith("mlx.core."):
            raise ImportError("libmlx.so: cannot open shared object file")

sys.meta_path.insert(0, NoBackend())
from mlx_autoresearch.cli import main
main()
"""


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def search(repository: Path, tiny: Config) -> Search:
    """A search of one kept experiment."""
    steps = [{"hypothesis": "slower", "overrides": {"optimizer.matrix_lr": 0.001}}]
    config = make_search(tiny, steps, seeds={"baseline": 2, "best": 1, "most": 2})
    search = Search.start(config, repository / "runs" / "research", repository, run_trial=free_trial)
    run_search(search)
    return search


def test_what_needs_mlx_ends_in_one_line(search: Search, repository: Path) -> None:
    shutil.copyfile(search.home / "research.yaml", repository / "night.yaml")
    for arguments in (
        ["research", "start", "night.yaml", "tag=second"],
        ["research", "resume"],
        ["research", "best", "--train", "train.max_steps=8"],
        ["research", "best", "--sample", "ab"],
        ["research", "best", "--holdout"],
        ["research", "best", "--export", "out"],
    ):
        done = call(repository, *arguments)
        assert done.returncode == 2, arguments
        assert len(done.stderr.splitlines()) == 1, (arguments, done.stderr)
        assert ("call make again" if system.is_macos() else "install mlx_autoresearch[cpu]") in done.stderr
        assert done.stdout == ""
    assert not (search.home.parent / "second").exists()


def test_what_needs_no_mlx_works(search: Search, repository: Path) -> None:
    for arguments, said in (
        (["research", "status"], "best_val_bpb:"),
        (["research", "report"], "report.html"),
        (["research", "best"], "hypothesis: slower"),
        (["research", "best", "--checkout", "tree", "--branch", "winner"], "checked out: "),
    ):
        done = call(repository, *arguments)
        assert (done.returncode, done.stderr) == (0, ""), arguments
        assert said in done.stdout
    assert "matrix_lr: 0.001" in (repository / "tree" / "research" / "experiment.yaml").read_text()
