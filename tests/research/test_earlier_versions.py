"""Searches that were begun when the package had no recipe/: they can be looked at, and are not run with other code."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mlx_autoresearch.cli.research import research
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.ledger.ledger import Ledger, Record, Trial
from mlx_autoresearch.research.editable import EXPERIMENT
from mlx_autoresearch.research.workspace import Workspace
from tests.support.laboratory import git, make_repository, make_search

OLD, UPDATED = "the checkout is old, too", "the checkout has been updated"


@pytest.fixture(params=[OLD, UPDATED])
def home(request: pytest.FixtureRequest, tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of such a search: a baseline, a kept experiment and one that was interrupted. We are in its checkout."""
    repository = make_repository(tmp_path / "checkout")
    package = repository / "src" / "mlx_autoresearch"
    for module in (package / "recipe").glob("*.py"):
        shutil.move(module, package / module.name)
    shutil.rmtree(package / "recipe")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "-m", "as it was")
    home = repository / "runs" / "research" / "old"
    home.mkdir(parents=True)
    workspace = Workspace(repository, home, "old")
    workspace.create(tiny.to_yaml())
    start = workspace.best
    changed = tiny.to_yaml().replace("matrix_lr: 0.04", "matrix_lr: 0.01")
    kept = workspace.commit(1, "lower", start, {EXPERIMENT: changed.encode()})
    ledger = Ledger(home / "ledger.jsonl")
    for number, (event, commit) in enumerate([("baseline", start), ("experiment", kept)]):
        run = home / f"experiments/{number:04d}/42"
        run.mkdir(parents=True)
        (run / "checkpoint.safetensors").write_bytes(b"weights")
        trial = Trial(42, 2.5 - number, 30, 7680, 0.2, 0.7, 2.1, 0.05, str(run.relative_to(home)))
        given = {"hypothesis": "lower", "proposer": "script", "kind": "other", "files": [EXPERIMENT], "overrides": {}}
        given |= {"insertions": 1, "deletions": 1, "trials": [trial], "val_bpb": trial.val_bpb, "status": "keep"}
        ledger.append(Record(number, event, "2026-01-01T00:00:00+00:00", commit, start, **given))  # type: ignore[arg-type]
    workspace.keep(kept)
    git(repository, "worktree", "add", "--quiet", str(workspace.path), "research/old")
    (home / "experiments/0002").mkdir()
    (workspace.path / EXPERIMENT).write_text("half an experiment")
    (home / "research.yaml").write_text(make_search(tiny, tag="old").to_yaml())
    (home / "state.json").write_text('{"evaluate.py": "0123"}\n')
    (home / ".lock").touch()
    if request.param == UPDATED:
        git(repository, "revert", "--no-edit", "HEAD")
    monkeypatch.chdir(repository)
    return home


def everything(home: Path) -> dict[str, object]:
    """The home's files, the branches and the worktrees."""
    repository = home.parents[2]
    state: dict[str, object] = {str(p): p.read_bytes() for p in sorted(home.rglob("*")) if p.is_file()}
    refs = (
        git(repository, "for-each-ref"),
        git(repository, "worktree", "list"),
        git(repository, "status", "--porcelain"),
    )
    return state | dict(enumerate(refs))


def call(*arguments: str) -> Result:
    return CliRunner().invoke(research, list(arguments))


def refused(*arguments: str) -> str:
    """The one line of a command that is refused."""
    result = call(*arguments)
    assert isinstance(result.exception, UserError), (result.exception, result.output)
    assert len(str(result.exception).splitlines()) == 1
    return str(result.exception)


def test_it_can_be_looked_at(home: Path) -> None:
    result = call("status", "old")
    assert result.exit_code == 0, result.exception
    assert dict(line.split(None, 1) for line in result.output.splitlines())["best_val_bpb:"] == "1.500000"
    result = call("report")
    assert result.exit_code == 0, result.exception
    assert "lower" in (home / "report.html").read_text()


def test_it_is_not_resumed_and_nothing_of_it_changes(home: Path) -> None:
    before = everything(home)
    said = refused("resume", "old")
    assert "begun with an earlier version" in said
    assert "git show research/old:research/experiment.yaml" in said
    assert everything(home) == before


def test_it_is_refused_as_clearly_where_it_has_been_moved(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.parents[2].rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    assert "begun with an earlier version" in refused("resume", "old")
    assert "is of an earlier version" in refused("best", "old", "--sample", "ab")


def test_its_winner_can_be_checked_out(home: Path, tmp_path: Path) -> None:
    result = call("best", "old", "--checkout", str(tmp_path / "tree"))
    assert result.exit_code == 0, result.exception
    assert "matrix_lr: 0.01" in (tmp_path / "tree" / EXPERIMENT).read_text()
    assert (tmp_path / "tree/src/mlx_autoresearch/model.py").is_file()


@pytest.mark.parametrize(
    "option", [["--train", "train.max_steps=8"], ["--sample", "ab"], ["--holdout"], ["--export", "out"]]
)
def test_its_code_is_not_run(home: Path, option: list[str]) -> None:
    before = everything(home)
    said = refused("best", "old", *option)
    assert "is of an earlier version" in said
    assert "--checkout FOLDER" in said
    assert everything(home) == before
    assert not Path("out").exists()


@pytest.mark.parametrize("home", [OLD], indirect=True)
def test_a_search_is_not_started_in_a_checkout_without_a_recipe(home: Path) -> None:
    before = everything(home)
    said = refused("start", str(home / "research.yaml"), "tag=new")
    assert "has no folder src/mlx_autoresearch/recipe" in said
    assert everything(home) == before
