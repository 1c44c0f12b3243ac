"""`research resume` compares research.yaml with the settings that the search was started with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.research.home import Search
from tests.support.laboratory import Quiet, free_trial, git, make_search, run_search

STEPS = [{"hypothesis": str(x), "overrides": {"optimizer.matrix_lr": x}} for x in (0.02, 0.01)]


@pytest.fixture
def search(repository: Path, tiny: Config) -> Search:
    """A search that was stopped after its first experiment."""
    config = make_search(tiny, STEPS, seeds={"baseline": 2, "best": 1, "most": 2})
    search = Search.start(config, repository / "runs", repository, run_trial=free_trial)
    run_search(search, experiments=1)
    return search


def edit(search: Search, old: str, new: str) -> None:
    file = search.home / "research.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


REFUSED = [
    ("eval_tokens: 1024", "eval_tokens: 512", "start.evaluate.eval_tokens was 1024, and is 512 now"),
    ("tag: test", "tag: other", 'tag was "test", and is "other" now'),
    ("remeasure_every: 20", "remeasure_every: 5", "remeasure_every was 20, and is 5 now"),
    ("false_keep_rate: 0.05", "false_keep_rate: 0.3", "decision.false_keep_rate was 0.05, and is 0.3 now"),
    ("recipe: {}", "recipe: {z_loss: 1}", "start.recipe"),
]


def test_a_setting_that_results_depend_on_is_refused(search: Search) -> None:
    refs = git(search.repository, "for-each-ref")
    for old, new, said in REFUSED:
        edit(search, old, new)
        with pytest.raises(UserError) as error:
            Search.open(search.home, run_trial=free_trial)
        message = str(error.value)
        assert f"{search.home / 'research.yaml'}: {said}" in message
        assert message.endswith("put it back, or start a new search with another tag") and "\n" not in message
        edit(search, new, old)
    assert git(search.repository, "for-each-ref") == refs
    assert Search.open(search.home).changed == []


def test_a_setting_that_may_be_another_one_is_accepted_and_said(search: Search) -> None:
    edit(search, "experiments: null", "experiments: 2")
    edit(search, "evaluate_seconds: 1800.0", "evaluate_seconds: 900.0")
    view = Quiet()
    again = Search.open(search.home, run_trial=free_trial)
    run_search(again, view)
    assert "note: experiments was null, and is 2 now" in view.lines
    assert "note: limits.evaluate_seconds was 1800.0, and is 900.0 now" in view.lines
    assert [r.number for r in again.ledger.records() if r.event == "experiment"] == [1, 2]


@pytest.mark.parametrize("state", ["without", "unreadable"])
def test_a_search_that_did_not_write_them_down_is_compared_with_its_first_commit(search: Search, state: str) -> None:
    file = search.home / "state.json"
    hashes = json.loads(file.read_text())
    del hashes["settings"]
    file.write_text(json.dumps(hashes) if state == "without" else "[")
    edit(search, "eval_tokens: 1024", "eval_tokens: 512")
    with pytest.raises(UserError, match=r"start.evaluate.eval_tokens was 1024, and is 512 now"):
        Search.open(search.home, run_trial=free_trial)


def test_a_search_without_results_is_compared_as_well(repository: Path, tiny: Config) -> None:
    search = Search.start(make_search(tiny), repository / "runs", repository, run_trial=free_trial)
    edit(search, "eval_tokens: 1024", "eval_tokens: 512")
    with pytest.raises(UserError, match="eval_tokens was 1024"):
        Search.open(search.home, run_trial=free_trial)
