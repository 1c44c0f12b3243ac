"""What untrusted code has damaged is put back or made anew, also by a resume; nothing is written through its links."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mlx_autoresearch.research.home import Search
from mlx_autoresearch.trials.trial import TrialFailed
from tests.support.laboratory import free_trial, git, run_search
from tests.support.vandals import (
    Damage,
    Honest,
    own,
    raises,
    replaced,
    vandal,
)


def symbolic_branch(search: Search) -> None:
    git(search.repository, "symbolic-ref", "refs/heads/research/test", "refs/heads/main")


SURVIVED = {
    "a folder as table": replaced("results.tsv", Path.mkdir),
    "a file as all experiments": replaced("experiments", Path.touch),
    "a file as the next folder": lambda s: own(s).touch(),
    "a link as the next folder": lambda s: own(s).symlink_to("0000"),
    "a protected folder as the next one": lambda s: (own(s) / "x/y").mkdir(parents=True) or (own(s) / "x").chmod(0),
    "a file as another's folder": replaced("experiments/0000", Path.touch),
    "a link as the agents' folder": lambda s: s.workspace.path.symlink_to(s.repository),
    "a file as the agents' folder": lambda s: s.workspace.path.touch(),
    "a link as the index's folder": lambda s: (s.home / ".index").symlink_to(s.repository / ".git"),
    "a file as git's folder of worktrees": lambda s: (
        shutil.rmtree(s.repository / ".git/worktrees"),
        (s.repository / ".git/worktrees").touch(),
    ),
    "a symbolic branch": symbolic_branch,
}


@pytest.mark.parametrize("damage", SURVIVED.values(), ids=SURVIVED)
def test_a_search_that_was_killed_after_the_damage_can_be_resumed(search: Search, damage: Damage) -> None:
    honest = Honest(search)
    main = git(search.repository, "rev-parse", "main")
    damage(search)
    resumed = Search.open(search.home, run_trial=free_trial)
    run_search(resumed)
    assert [(r.number, r.status) for r in resumed.ledger.records()][:3] == [(0, "keep"), (1, "discard"), (2, "keep")]
    assert resumed.ledger.records()[0] == honest.baseline
    assert git(search.repository, "rev-parse", "main") == main


def no_checkpoint(search: Search) -> None:
    """The best's checkpoints, by a link in the place of the own run folder."""
    shutil.rmtree(own(search) / "42", ignore_errors=True)
    (own(search) / "42").symlink_to(search.home / "experiments/0000/42")


def test_the_weights_of_the_best_are_not_deleted_through_a_link(search: Search) -> None:
    honest = Honest(search)
    search.run_trial = vandal(search, no_checkpoint)
    run_search(search)
    honest.check()
    assert (search.home / "experiments/0000/42/checkpoint.safetensors").read_bytes() == b"weights"


@pytest.mark.parametrize("name", ["output.txt", "diff.patch"])
def test_nothing_is_written_through_a_link_in_the_experiments_folder(search: Search, name: str, tmp_path: Path) -> None:
    honest, victim = Honest(search), tmp_path / "victim"
    victim.write_text("dear")

    def damage(search: Search) -> None:
        (own(search) / name).symlink_to(victim)

    search.run_trial = vandal(search, damage, raises(TrialFailed("exception", "TypeError")))
    run_search(search)
    honest.check()
    assert victim.read_text() == "dear"
    assert (own(search) / name).is_file() and not (own(search) / name).is_symlink()


def test_a_folder_where_we_write_a_trials_output_costs_the_experiment_only(search: Search) -> None:
    honest = Honest(search)
    search.run_trial = vandal(
        search, lambda s: (own(s) / "42.txt").mkdir(), raises(IsADirectoryError(21, "Is a directory", "/x/42.txt"))
    )
    run_search(search)
    record, _ = honest.check()
    assert (record.status, record.reason.partition(";")[0]) == (
        "rejected",
        "guard: 42.txt changed outside the run's own folder",
    )
