"""What experiments leave on the disk has a limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.ledger.ledger import Trial
from mlx_autoresearch.research import leftovers
from mlx_autoresearch.research.home import Search
from mlx_autoresearch.trials import trial as trials
from mlx_autoresearch.trials.limits import Limits
from mlx_autoresearch.trials.trial import TrialFailed
from tests.support.laboratory import free_trial, make_search, run_search

STEPS = [{"hypothesis": str(x), "overrides": {"optimizer.matrix_lr": x}} for x in (0.5, 0.02, 0.6, 0.7)]


@pytest.fixture
def search(repository: Path, tiny: Config) -> Search:
    def trial(config: Config, *, folder: Path, **given: Any) -> Trial:
        result = free_trial(config, folder=folder, **given)
        (folder / "metrics.jsonl").write_bytes(bytes(200_000))
        (folder / "large").write_bytes(bytes(2 << 20))
        (folder / "below").mkdir()
        (folder / "below" / "checkpoint.safetensors").write_bytes(bytes(2 << 20))
        (folder.parent / ".scratch-0").mkdir(exist_ok=True)
        if config.optimizer.matrix_lr == 0.6:
            raise TrialFailed("nan", "the loss is NaN")
        return result

    config = make_search(tiny, STEPS, seeds={"baseline": 2, "best": 1, "most": 2})
    return Search.start(config, repository / "runs", repository, run_trial=trial)


def names(search: Search, number: int) -> set[str]:
    return {path.name for path in search.folder(number).rglob("*") if path.is_file()}


def test_of_what_was_not_kept_only_small_files_stay(search: Search) -> None:
    run_search(search)
    assert [r.status for r in search.ledger.records() if r.event == "experiment"] == [
        "discard", "keep", "crash", "discard"
    ]  # fmt: skip
    for number in (1, 3, 4):
        assert {"diff.patch", "metrics.jsonl"} <= names(search, number)
        assert not {"large", "checkpoint.safetensors"} & names(search, number), number
        assert not list(search.folder(number).glob(".scratch*"))
    assert {"large", "checkpoint.safetensors"} <= names(search, 2)


def test_the_oldest_lose_their_runs_where_all_are_too_much(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "_BUDGET", 250_000)
    run_search(search)
    assert names(search, 1) == {"diff.patch"}
    assert names(search, 3) == {"diff.patch", "output.txt"}
    assert "metrics.jsonl" in names(search, 4)
    assert "large" in names(search, 2)
    run_search(Search.open(search.home, run_trial=free_trial))


def test_of_an_untrusted_run_only_a_runs_files_are_taken(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("checkpoint.safetensors", "metrics.jsonl", "summary.json", "weights.bin"):
        (run / name).write_bytes(bytes(1000))
    trials._take_over(run, tmp_path / "taken", tiny, Limits())
    assert {p.name for p in (tmp_path / "taken").iterdir()} == {
        "checkpoint.safetensors", "config.yaml", "metrics.jsonl", "summary.json"
    }  # fmt: skip
    monkeypatch.setattr(trials, "_LARGEST_BYTES", dict.fromkeys(trials._FILES, 999))
    with pytest.raises(TrialFailed, match=r"output: left 1,000 bytes in (metrics.jsonl|summary.json)"):
        trials._take_over(tmp_path / "taken", tmp_path / "again", tiny, Limits())
