"""A small repository, prepared text, a trainer that costs nothing, and scripted agents."""

from __future__ import annotations

import random
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import mlx_autoresearch
from mlx_autoresearch.config.load import validate_config
from mlx_autoresearch.config.settings import Config, Section
from mlx_autoresearch.data.prepare import prepare
from mlx_autoresearch.ledger.ledger import Record, Trial
from mlx_autoresearch.machine.paths import cache_dir
from mlx_autoresearch.research.editable import CODE
from mlx_autoresearch.research.home import Search
from mlx_autoresearch.research.loop import run
from mlx_autoresearch.research.proposers.agent import AgentProposer
from mlx_autoresearch.research.proposers.base import Context, Proposal
from mlx_autoresearch.research.proposers.make import make_proposer
from mlx_autoresearch.research.proposers.settings import AgentSettings
from mlx_autoresearch.research.settings import SearchConfig
from mlx_autoresearch.research.view import View

S = TypeVar("S", bound=Section)

_ROOT = Path(mlx_autoresearch.__file__).parents[2]


def make_config(corpus: Path, **train: Any) -> Config:
    """A configuration that trains in half a second, its data prepared."""
    values = {
        "data": {"source": {"kind": "text", "paths": [str(corpus)], "val_fraction": 0.2}, "vocab_size": 300},
        "model": {"n_layer": 2, "n_head": 2, "n_kv_head": 1, "n_embd": 32, "sequence_len": 32},
        "train": {"max_steps": 6, "total_batch_size": 256, "device_batch_size": 4} | train,
        "evaluate": {"eval_tokens": 1024, "sequence_len": 32},
    }
    config = validate_config(values, "the test")
    prepare(config.data.source, vocab_size=config.data.vocab_size, cache_dir=cache_dir(), quiet=True)
    return config


def make_repository(folder: Path) -> Path:
    """A checkout with the installed editable code in it, and some that is not editable, committed."""
    folder.mkdir(parents=True)
    for path in (*CODE, "src/mlx_autoresearch/metric"):
        if (_ROOT / path).is_dir():
            shutil.copytree(_ROOT / path, folder / path, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(_ROOT / path, folder / path)
    (folder / "README.md").write_text("a checkout\n")
    (folder / ".gitignore").write_text("/runs/\n__pycache__/\n")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "all")
    return folder


def git(folder: Path, *arguments: str) -> str:
    """Run git as somebody, and return what it prints."""
    who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    return subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True
    ).stdout


def make_search(start: Config, steps: list[dict[str, Any]] | None = None, **settings: Any) -> SearchConfig:
    """The settings of a search whose proposer is a script, a step an experiment."""
    steps = steps or [{"hypothesis": "nothing", "overrides": {"optimizer.matrix_lr": 0.01}}]
    values = {"tag": "test", "start": start.model_dump(mode="json"), "proposer": {"kind": "script", "steps": steps}}
    return SearchConfig.model_validate(values | settings)


SEEDS = {"baseline": 3, "best": 1, "most": 3}


def lr(value: float) -> dict[str, Any]:
    """A step of a script that sets Muon's learning rate; `free_trial` likes small ones."""
    return {
        "hypothesis": f"learning rate {value}",
        "kind": "learning rate",
        "overrides": {"optimizer.matrix_lr": value},
    }


def free_trial(config: Config, *, seed: int, folder: Path, code: Path | None, **_: Any) -> Trial:
    """In the place of `run_trial`: lower learning rates are better, and every seed has a little noise of its own."""
    folder.mkdir(parents=True)
    (folder / "checkpoint.safetensors").write_bytes(b"weights")
    noise = random.Random(f"{seed} {config.optimizer.matrix_lr}").gauss(0, 0.001)
    bpb = 2.0 + config.optimizer.matrix_lr + noise
    return Trial(seed, bpb, 10, 1000, 1.0, 2.0, 100.0, 1.0, str(folder))


class Quiet(View):
    """Keeps the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


class Programs:
    """The agent proposer with another agent, a Python program, for every experiment."""

    name = "agent:test"
    trusted = False

    def __init__(self, *programs: str, seconds: float):
        self._programs, self._seconds = programs, seconds

    def propose(self, context: Context) -> Proposal | None:
        if context.number > len(self._programs):
            return None
        program = context.folder / "agent.py"
        program.write_text(self._programs[context.number - 1])
        settings = AgentSettings(command=[sys.executable, str(program)], minutes=self._seconds / 60)
        return AgentProposer(settings, most_seeds=None).propose(context)

    def told(self, record: Record) -> None: ...


def run_search(search: Search, view: View | None = None, *, experiments: int | None = None) -> None:
    """Run a search with the proposer of its settings."""
    run(search, make_proposer(search.config), view or Quiet(), experiments=experiments)


def run_steps(repository: Path, start: Config, steps: list[dict[str, Any]], **settings: Any) -> Search:
    """A new search that has tried the steps of a script, with trials that cost nothing."""
    config = make_search(start, steps, **{"seeds": SEEDS} | settings)
    search = Search.start(config, repository / "runs", repository, run_trial=free_trial)
    run_search(search)
    return search


def experiments(search: Search) -> list[Record]:
    """The records of a search's experiments."""
    return [r for r in search.ledger.records() if r.event == "experiment"]


def run_programs(search: Search, *programs: str, seconds: float = 20.0, view: View | None = None) -> list[Record]:
    """Run a search with a program for each experiment; the experiments' records."""
    run(search, Programs(*programs, seconds=seconds), view or Quiet())
    return [r for r in search.ledger.records() if r.event == "experiment"]


def replace(section: S, **values: Any) -> S:
    """A section of a configuration with other values for some of its fields."""
    return section.model_copy(update=values)


def daemon(seconds: float = 300) -> str:
    """A shell command that leaves a process behind, in a session of its own; macOS has no `setsid` program."""
    program = f"import os, time; os.fork() and os._exit(0); os.setsid(); time.sleep({seconds})"
    return f"{shlex.quote(sys.executable)} -c '{program}'"


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Poll until a condition holds; fails after `seconds`."""
    import time

    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came about"
        time.sleep(0.02)
