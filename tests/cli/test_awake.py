"""The commands that run for long keep a Mac awake: each starts caffeinate once, and says so in one line."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.config.yaml_text import dump_yaml
from mlx_autoresearch.ledger.ledger import Trial
from mlx_autoresearch.machine.awake import awake
from mlx_autoresearch.report import write as report_write
from mlx_autoresearch.research import winner_model
from mlx_autoresearch.research.home import Search
from mlx_autoresearch.research.winner import Winner
from mlx_autoresearch.sweep import plots, worker
from mlx_autoresearch.training import trainer
from mlx_autoresearch.training.progress import Reporter
from tests.support import sweeps
from tests.support.caffeinate import SAID, Caffeinate
from tests.support.corpus import make_corpus
from tests.support.laboratory import (
    Quiet,
    free_trial,
    make_config,
    make_repository,
    make_search,
    run_search,
    wait_until,
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return make_config(make_corpus(tmp_path_factory.mktemp("text") / "corpus"))


@pytest.fixture
def caffeinate(tmp_path: Path, mac: None, monkeypatch: pytest.MonkeyPatch) -> Caffeinate:
    return Caffeinate(tmp_path / "calls", monkeypatch)


def while_awake(run: Callable[..., Trial], caffeinate: Caffeinate) -> Callable[..., Trial]:
    """`run`, during which caffeinate must be running; it asks for it once more."""

    def trial(config: Config, **given: Any) -> Trial:
        with awake(pytest.fail):
            wait_until(caffeinate.runs)
        return run(config, **given)

    return trial


def check(caffeinate: Caffeinate, said: list[str]) -> None:
    assert len(caffeinate.calls()) == 1
    assert not caffeinate.runs()
    assert said.count(SAID) == 1


def test_a_training_and_its_resumption(tiny: Config, tmp_path: Path, caffeinate: Caffeinate) -> None:
    for number in (1, 2):
        out = io.StringIO()
        if number == 1:
            run = trainer.train(tiny, runs=tmp_path / "runs", reporter=Reporter(out))["run"]
        else:
            trainer.resume(run, reporter=Reporter(out))
        assert out.getvalue().splitlines().count(SAID) == 1
        assert len(caffeinate.calls()) == number
        assert not caffeinate.runs()


def test_a_sweep(tiny: Config, tmp_path: Path, caffeinate: Caffeinate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "run_trial", while_awake(sweeps.free_trial, caffeinate))
    monkeypatch.setattr(report_write, "write", lambda *_, **__: None)
    monkeypatch.setattr(plots, "draw", lambda _: [])
    (tmp_path / "base.yaml").write_text(tiny.to_yaml())
    (tmp_path / "lr.yaml").write_text(dump_yaml({"config": "base.yaml", "space": {"optimizer.matrix_lr": [0.1, 0.2]}}))
    view = sweeps.Lines()
    sweeps.run_sweep(tmp_path / "lr.yaml", view=view)
    check(caffeinate, view.lines)


def test_a_search_and_the_training_of_its_winner(
    tiny: Config,
    tmp_path: Path,
    caffeinate: Caffeinate,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    repository = make_repository(tmp_path / "checkout")
    trial = while_awake(free_trial, caffeinate)
    search = Search.start(make_search(tiny), repository / "runs", repository, run_trial=trial)
    view = Quiet()
    run_search(search, view)
    assert [r.event for r in search.ledger.records()][:2] == ["baseline", "experiment"]
    check(caffeinate, view.lines)

    monkeypatch.setattr(winner_model, "code_of", lambda *_: nullcontext(tmp_path))  # changed code, which is confined
    monkeypatch.setattr(winner_model, "run_trial", trial)
    winner_model.train(Winner.of(search.home), ["train.max_steps=8"], seed=7)
    assert len(caffeinate.calls()) == 2
    assert not caffeinate.runs()
    assert capsys.readouterr().err.splitlines().count(SAID) == 1
