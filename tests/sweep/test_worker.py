"""A process at work on a sweep: every point with every seed, failures recorded, hopeless points stopped."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_autoresearch.config.load import load_config
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.ledger.ledger import Ledger, Trial
from mlx_autoresearch.sweep import worker
from mlx_autoresearch.sweep.sweep import open_sweep
from mlx_autoresearch.training.data import open_data
from mlx_autoresearch.trials.trial import TrialFailed
from tests.support.sweeps import Lines, Sweeper, bpb, free_trial, rows, run_sweep


def test_every_point_is_tried_with_every_seed(file: Sweeper) -> None:
    result = run_sweep(file(seeds=[1, 3]))
    assert result.values == {"optimizer.matrix_lr": 0.04}
    assert result.val_bpb == pytest.approx(2.002)
    table = rows(result.home)
    assert [row["optimizer.matrix_lr"] for row in table] == ["0.04", "0.1", "0.01"]
    assert all(float(row["deviation"]) == pytest.approx(0.0014, abs=1e-4) for row in table)
    records = Ledger(result.home / "ledger.jsonl").records()
    assert [(r.status, r.overrides["optimizer.matrix_lr"]) for r in records] == [
        ("keep", 0.01),
        ("keep", 0.1),
        ("keep", 0.04),
    ]
    assert [t.run for t in records[2].trials] == ["trials/0002/1", "trials/0002/3"]


def test_failures_are_recorded_and_the_sweep_goes_on(file: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(config: Config, **rest: Any) -> Trial:
        if config.optimizer.matrix_lr == 0.01:
            raise TrialFailed("nan", "the loss is NaN at step 3")
        return free_trial(config, **rest)

    monkeypatch.setattr(worker, "run_trial", fails)
    view = Lines()
    path = file(
        method="random",
        trials=12,
        space={"optimizer.matrix_lr": [0.01, 0.04], "train.total_batch_size": [100, 256]},
    )
    home = run_sweep(path, view=view).home
    records = Ledger(home / "ledger.jsonl").records()
    by_status = {status: [r for r in records if r.status == status] for status in ("crash", "rejected", "keep")}
    assert all(r.reason == "nan: the loss is NaN at step 3" for r in by_status["crash"])
    assert all(r.overrides["train.total_batch_size"] == 100 for r in by_status["rejected"])
    assert "multiple" in by_status["rejected"][0].reason
    assert len(by_status["crash"]) == 1 and len(by_status["keep"]) == 1
    assert len(records) == 4, "all points that there are, once"
    assert any("failed: nan: the loss is NaN" in line for line in view.lines)


def test_tpe_learns_and_more_points_can_be_added(file: Sweeper) -> None:
    space = {"optimizer.matrix_lr": {"low": 0.0001, "high": 10.0, "log": True}}
    first = run_sweep(file(method="tpe", trials=12, space=space))
    assert len(rows(first.home)) == 12
    result = run_sweep(file(method="tpe", trials=30, space=space))
    assert len(rows(result.home)) == 30
    values = [
        math.log(r.overrides["optimizer.matrix_lr"] / 0.04) for r in Ledger(result.home / "ledger.jsonl").records()
    ]
    assert sum(map(abs, values[15:])) / 15 < sum(map(abs, values[:10])) / 10


def test_time_left_is_told(file: Sweeper) -> None:
    view = Lines()
    run_sweep(file(), view=view)
    lines = [line for line in view.lines if not line.startswith("keeping this Mac awake")]
    assert [line.split()[0] for line in lines] == ["[1/3]", "[2/3]", "[3/3]"]
    assert "left" in lines[0] and "left" not in lines[2]


def test_a_point_above_the_median_is_stopped(file: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
    finished: list[float] = []

    def stepping(config: Config, *, seed: int, folder: Path, say: Any, **rest: Any) -> Trial:
        for step in range(1, 21):
            say({"event": "step", "step": step, "loss": bpb(config, 0), "remaining": 0.0})
        finished.append(config.optimizer.matrix_lr)
        return free_trial(config, seed=seed, folder=folder, say=say, code=None, limits=None)

    monkeypatch.setattr(worker, "run_trial", stepping)
    space = {"optimizer.matrix_lr": [0.04, 0.05, 0.03, 0.001, 0.045]}
    result = run_sweep(file(space=space, prune={"trials": 3, "after": 0.5}, seeds=[1, 2]))
    assert finished == [0.04, 0.04, 0.05, 0.05, 0.03, 0.03, 0.045, 0.045]
    pruned = [r for r in Ledger(result.home / "ledger.jsonl").records() if r.val_bpb is None]
    assert [(r.overrides["optimizer.matrix_lr"], r.status) for r in pruned] == [(0.001, "discard")]
    assert "stopped at 50%" in pruned[0].reason


def test_losses_are_compared_in_bits_per_byte(file: Sweeper, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def halfway(config: Config, *, say: Any, **rest: Any) -> Trial:
        say({"event": "step", "step": 10, "loss": 1.0, "remaining": 0.0})
        return free_trial(config, **rest)

    monkeypatch.setattr(worker, "run_trial", halfway)
    path = file(space={"optimizer.matrix_lr": [0.04]}, prune={"trials": 1})
    home = run_sweep(path).home
    (trial,) = open_sweep(path, home=home).points()
    config = load_config(base)
    train = open_data(config).split("train")
    tokens = np.asarray(train.tokens)
    bits = len(tokens[tokens != open_data(config).tokenizer.bos_id]) / math.log(2)  # of a nat for every token
    assert trial.intermediate_values == {50: pytest.approx(bits / train.info.bytes)}


def test_a_full_disk_costs_no_point(file: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(config: Config, **rest: Any) -> Trial:
        raise OSError(28, "No space left on device")

    path = file()
    monkeypatch.setattr(worker, "run_trial", full)
    with pytest.raises(OSError, match="No space"):
        run_sweep(path)
    monkeypatch.setattr(worker, "run_trial", free_trial)
    assert [row["status"] for row in rows(run_sweep(path).home)] == ["complete"] * 3


def test_real_training(file: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlx_autoresearch.trials.trial import run_trial

    monkeypatch.setattr(worker, "run_trial", run_trial)
    result = run_sweep(file(space={"optimizer.unembedding_lr": [0.004, 0.0]}))
    runs = [json.loads(p.read_text()) for p in sorted(result.home.glob("trials/*/42/summary.json"))]
    assert len(runs) == 2
    assert result.val_bpb == min(run["val_bpb"] for run in runs)
    assert result.values == {"optimizer.unembedding_lr": 0.004}
    assert sorted(os.listdir(result.home / "locks")) == ["journal.lock", "sweep.lock"]
