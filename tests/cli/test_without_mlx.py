"""Without an MLX backend (a plain `pip install` on Linux) every command works, or says in one line what to install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_autoresearch.cli.app import app
from mlx_autoresearch.config.yaml_text import dump_yaml
from tests.support.corpus import make_corpus, tiny_settings
from tests.support.fake_research import write_research
from tests.support.laboratory import git

# What Linux says where the package `mlx` is there, and the backend with its library is not.
MAIN = """
import sys
from importlib.abc import MetaPathFinder

class NoBackend(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "mlx.core":
            raise ImportError("libmlx.so: cannot open shared object file: No such file or directory")

sys.meta_path.insert(0, NoBackend())
from mlx_autoresearch.cli import main
main()
"""
# Whether a command line works without MLX; the paths in it are made by `folder`.
COMMANDS = {
    "prepare tiny.yaml": True,
    "config tiny.yaml": True,
    "train tiny.yaml": False,
    "train --resume run": False,
    "evaluate run": False,
    "bench tiny.yaml": False,
    "doctor": False,
    "sweep sweep.yaml": False,
    "kernels verify": False,
    "kernels mutate": False,
    "kernels tune tiny.yaml": False,
    "kernels bench tiny.yaml": False,
    "research start research.yaml": False,
    "research resume nov22 --home home": False,
    "research status nov22 --home home": True,
    "research report nov22 --home home": True,
    "research best nov22 --home home --sample ab": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with a configuration, a sweep, and a search that has ended."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "tiny.yaml").write_text(dump_yaml(tiny_settings(make_corpus(folder / "text"))))
    (folder / "sweep.yaml").write_text("config: tiny.yaml\nspace: {optimizer.matrix_lr: [0.01]}\n")
    steps = "[{hypothesis: smaller, overrides: {optimizer.matrix_lr: 0.01}}]"
    (folder / "research.yaml").write_text(f"tag: night\nstart: tiny.yaml\nproposer: {{kind: script, steps: {steps}}}\n")
    for code in ("src/mlx_autoresearch/recipe", "custom_kernels"):  # what a search starts from
        (folder / code).mkdir(parents=True)
        (folder / code / "any.py").touch()
    home = write_research(folder / "home" / "nov22", experiments=3, kept=1)
    (home / "research.yaml").write_text((folder / "research.yaml").read_text().replace("tiny.yaml", "{}"))
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "all")
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_works_or_says_what_to_install(folder: Path, command: str) -> None:
    arguments = [sys.executable, "-c", MAIN, *command.split()]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
    if COMMANDS[command]:
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    else:
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
        assert "mlx_autoresearch[cpu]" in done.stderr


def test_every_command_is_tried() -> None:
    groups = {group.name: group.typer_instance for group in app.registered_groups}
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    for group, commands in groups.items():
        assert commands is not None
        names |= {f"{group} {c.callback.__name__}" for c in commands.registered_commands if c.callback}
    tried = [command.split() for command in COMMANDS]
    assert {" ".join(words[: 2 if words[0] in groups else 1]) for words in tried} == names
