"""Settings that the recipe declares: experiments add and change them; the search itself does not judge them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from mlx_autoresearch.cli.research import research
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.ledger.ledger import Record, Trial
from mlx_autoresearch.research.home import Search
from mlx_autoresearch.research.proposers.settings import OptunaSettings
from mlx_autoresearch.research.settings import SearchConfig
from tests.support.laboratory import free_trial, git, make_search, run_programs, run_search


def better_with_more(config: Config, **given: Any) -> Trial:
    """The more z_loss, the better."""
    trial = free_trial(config, **given)
    z_loss = config.recipe.get("z_loss", 0.0)
    assert isinstance(z_loss, float)
    return Trial(**{**vars(trial), "val_bpb": trial.val_bpb - z_loss})


def experiments(search: Search) -> list[Record]:
    return [r for r in search.ledger.records() if r.event == "experiment"]


def test_an_experiment_sets_one_that_the_installed_recipe_does_not_know(repository: Path, tiny: Config) -> None:
    steps = [
        {"hypothesis": "z", "overrides": {"recipe.z_loss": 0.1}},
        {"hypothesis": "z, more", "overrides": {"recipe.z_loss": 0.2, "recipe.heads": [1, 2]}},
    ]
    config = make_search(tiny, steps, seeds={"baseline": 2, "best": 1, "most": 2})
    search = Search.start(config, repository / "runs", repository, run_trial=better_with_more)
    run_search(search)
    first, second = experiments(search)
    assert (first.status, first.overrides) == ("keep", {"recipe.z_loss": 0.1})
    assert (second.status, second.overrides) == ("keep", {"recipe.z_loss": 0.2, "recipe.heads": [1, 2]})
    run_search(Search.open(search.home, run_trial=better_with_more))  # it resumes from such a best


def test_an_agent_adds_one_with_its_code(repository: Path, tiny: Config) -> None:
    program = """
from pathlib import Path
Path("src/mlx_autoresearch/recipe/mine.py").write_text("Z_LOSS = 0.0\\n")
file = Path("research/experiment.yaml")
text = file.read_text()
assert "recipe: {}" in text
file.write_text(text.replace("recipe: {}", "recipe: {z_loss: 0.1}"))
"""
    config = make_search(tiny, seeds={"baseline": 2, "best": 1, "most": 2})
    search = Search.start(config, repository / "runs", repository, run_trial=better_with_more)
    [record] = run_programs(search, program)
    assert (record.status, record.overrides) == ("keep", {"recipe.z_loss": 0.1})
    assert record.files == ["research/experiment.yaml", "src/mlx_autoresearch/recipe/mine.py"]


def test_the_built_in_proposer_searches_them(repository: Path, tiny: Config) -> None:
    proposer = OptunaSettings.model_validate({"space": {"recipe.z_loss": {"choices": [0.0, 0.1]}}})
    settings = make_search(tiny, seeds={"baseline": 2, "best": 1, "most": 2}).model_dump() | {"proposer": proposer}
    search = Search.start(
        SearchConfig.model_validate(settings), repository / "runs", repository, run_trial=better_with_more
    )
    run_search(search)
    [record, *_] = [r for r in experiments(search) if r.status == "keep"]
    assert record.overrides == {"recipe.z_loss": 0.1}


WRONG = {
    "the start": ({"start": {"recipe": {"q": 1}}}, "unknown key recipe.q"),
    "a space": ({"proposer": {"space": {"recipe.q": {"choices": [0, 1]}}}}, "proposer: unknown key recipe.q"),
    "a move": (
        {
            "proposer": {
                "space": {"optimizer.matrix_lr": {"choices": [0.1, 0.2]}},
                "moves": [{"hypothesis": "q", "overrides": {"recipe.q": 1}}],
            }
        },
        "proposer: unknown key recipe.q",
    ),
}


def start(repository: Path, tiny: Config, wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Result:
    values = {"tag": "test", "start": tiny.model_dump(mode="json")}
    values |= {"proposer": {"space": {"optimizer.matrix_lr": {"choices": [0.1, 0.2]}}}} | wrong
    values["start"] = tiny.model_dump(mode="json") | wrong.get("start", {})
    file = repository.parent / "search.yaml"
    file.write_text(yaml.safe_dump(values))
    monkeypatch.chdir(repository)
    monkeypatch.setattr("mlx_autoresearch.research.loop.run", lambda *_, **__: None)
    return CliRunner().invoke(research, ["start", str(file)])


@pytest.mark.parametrize(("wrong", "said"), WRONG.values(), ids=WRONG)
def test_one_that_the_recipe_does_not_declare_is_refused_before_anything_is_made(
    repository: Path, tiny: Config, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any], said: str
) -> None:
    result = start(repository, tiny, wrong, monkeypatch)
    assert isinstance(result.exception, UserError) and said in str(result.exception)
    assert not (repository / "runs").exists()
    assert git(repository, "branch", "--list", "research/*") == ""
    result = start(repository, tiny, {}, monkeypatch)
    assert result.exit_code == 0, result.exception


@pytest.mark.parametrize(("wrong", "said"), WRONG.values(), ids=WRONG)
def test_where_the_checkouts_recipe_is_not_the_installed_one_it_is_not_asked(
    repository: Path, tiny: Config, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any], said: str
) -> None:
    (repository / "src/mlx_autoresearch/recipe/mine.py").touch()
    git(repository, "add", "--all")
    git(repository, "commit", "-qm", "mine")
    assert start(repository, tiny, wrong, monkeypatch).exit_code == 0
