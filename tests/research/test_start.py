"""How a search is started: once, anew where it has measured nothing, and never in the place of something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import RunFailed, UserError
from mlx_autoresearch.ledger.ledger import Trial
from mlx_autoresearch.research.home import Search
from mlx_autoresearch.trials.trial import TrialFailed
from tests.support.laboratory import SEEDS, experiments, free_trial, git, lr, make_search, run_search, run_steps


def test_a_search_that_has_measured_nothing_is_replaced_by_a_second_start(repository: Path, tiny: Config) -> None:
    def crashes(config: Config, **given: Any) -> Trial:
        given["folder"].mkdir(parents=True)
        raise TrialFailed("out of memory", "no")

    config = make_search(tiny, [lr(0.02)], seeds=SEEDS)
    search = Search.start(config, repository / "runs", repository, run_trial=crashes)
    with pytest.raises(RunFailed):
        run_search(search)
    with search.locked(), pytest.raises(UserError, match="holds a search already"):
        Search.start(config, repository / "runs", repository, run_trial=free_trial)
    again = run_steps(repository, tiny, [lr(0.001)])
    assert [(r.number, r.status) for r in again.ledger.records()][:2] == [(0, "keep"), (1, "keep")]
    assert b"matrix_lr: 0.001" in (again.workspace.read(again.workspace.best, "research/experiment.yaml") or b"")


def test_a_search_whose_ledger_was_lost_is_not_replaced(repository: Path, tiny: Config) -> None:
    search = run_steps(repository, tiny, [lr(0.02)])
    search.ledger.path.unlink()
    with pytest.raises(UserError, match="holds a search already"):
        Search.start(search.config, repository / "runs", repository, run_trial=free_trial)
    assert (search.home / "experiments/0001").is_dir()


def test_a_research_is_started_once_and_run_by_one_process(repository: Path, tiny: Config) -> None:
    search = run_steps(repository, tiny, [lr(0.5)])
    with pytest.raises(UserError, match="holds a search already"):
        Search.start(search.config, repository / "runs", repository, run_trial=free_trial)
    with pytest.raises(UserError, match="branch research/test exists already"):
        Search.start(search.config, repository / "elsewhere", repository, run_trial=free_trial)
    with FileLock(search.home / ".lock"), pytest.raises(UserError, match="another process"):
        run_search(Search.open(search.home, run_trial=free_trial))


def test_a_start_that_was_killed_half_way_can_be_repeated(
    repository: Path, tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for place in ("Workspace.create", "write_atomically"):
        with monkeypatch.context() as patch:
            patch.setattr(f"mlx_autoresearch.research.home.{place}", killed)
            with pytest.raises(KeyboardInterrupt):
                run_steps(repository, tiny, [lr(0.5)])
    again = run_steps(repository, tiny, [lr(0.02)])
    assert [r.status for r in experiments(again)] == ["keep"]


def test_a_folder_that_is_no_research_is_left_alone(repository: Path, tiny: Config, tmp_path: Path) -> None:
    precious = tmp_path / "documents" / "thesis.tex"
    precious.parent.mkdir()
    precious.write_text("years of work")
    git(repository, "branch", "research/documents")
    config = make_search(tiny, [lr(0.5)], seeds=SEEDS, tag="documents")
    with pytest.raises(UserError, match="exists and holds no search"):
        Search.start(config, tmp_path, repository, run_trial=free_trial)
    assert precious.read_text() == "years of work"
    assert "research/documents" in git(repository, "branch")
