"""Runs in float16: resumed bit for bit, skipped steps told, evaluated and sampled like any other."""

from __future__ import annotations

import io
import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import LossExploded
from mlx_autoresearch.machine import device
from mlx_autoresearch.recipe import loss_scale
from mlx_autoresearch.training import trainer
from mlx_autoresearch.training.data import open_data
from mlx_autoresearch.training.files import CHECKPOINT, SUMMARY
from mlx_autoresearch.training.progress import Reporter
from mlx_autoresearch.training.run import Run
from mlx_autoresearch.training.sample import next_token
from mlx_autoresearch.training.scoring import trained_model
from tests.support.runs import StopAfter, losses, make_config, quiet, train


def half(corpus: Path, **settings) -> Config:
    return make_config(corpus, **{"compute_dtype": "float16"} | settings)


@pytest.fixture
def overflowing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scale begins so high that the first steps overflow, and goes up again every second step."""
    monkeypatch.setattr(loss_scale, "FIRST", 2.0**23)
    monkeypatch.setattr(loss_scale, "PATIENCE", 2)


@pytest.mark.parametrize("rows", [8, 4])
@pytest.mark.usefixtures("overflowing")
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(corpus: Path, tmp_path: Path, rows: int) -> None:
    config = half(corpus, max_steps=9, device_batch_size=rows)
    whole, whole_summary = train(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt, match="after step 5"):
        train(config, tmp_path / "parts", StopAfter(5))
    (folder,) = (tmp_path / "parts").iterdir()
    summary = trainer.resume(folder, reporter=quiet())
    assert losses(Run.open(folder)) == losses(whole)
    assert summary["val_bpb"] == whole_summary["val_bpb"]
    assert summary["skipped_steps"] == whole_summary["skipped_steps"]
    skipped = [record["skipped_steps"] for record in whole.metrics()]
    assert 0 < skipped[0] <= skipped[4] < skipped[-1] < 9  # before the interruption and after it
    a, b = (mx.load(str(r.path / CHECKPOINT)) for r in (whole, Run.open(folder)))
    assert {"optimizer.loss_scale.scale", "optimizer.loss_scale.good_steps"} <= a.keys() == b.keys()
    assert all(mx.array_equal(a[name], b[name]) for name in a)


@pytest.mark.usefixtures("overflowing")
def test_skipped_steps_are_told(corpus: Path, tmp_path: Path) -> None:
    out = io.StringIO()
    run, summary = train(half(corpus), tmp_path, Reporter(out))
    skipped = summary["skipped_steps"]
    assert 0 < skipped < summary["num_steps"] == 6
    assert f"\n{skipped} of 6 steps skipped: their gradients overflowed float16\n" in out.getvalue()
    assert f"\nskipped_steps:         {skipped}\n" in out.getvalue()
    assert (
        json.loads((run.path / SUMMARY).read_text())["skipped_steps"] == run.metrics()[-1]["skipped_steps"] == skipped
    )


def test_the_momentum_ramp_counts_the_steps_that_were_taken(corpus: Path, tmp_path: Path, monkeypatch) -> None:
    told, real = [], trainer.interface.set_schedule

    def set_schedule(*arguments, step: int, **others) -> float:
        told.append(step)
        return real(*arguments, step=step, **others)

    monkeypatch.setattr(trainer.interface, "set_schedule", set_schedule)
    monkeypatch.setattr(loss_scale, "FIRST", 2.0**23)
    run, _ = train(half(corpus), tmp_path)
    assert told == [0, *(r["step"] - r["skipped_steps"] for r in run.metrics()[:-1])]
    assert told[1] == 0


def test_a_run_that_takes_no_step_ends_in_one_line(corpus: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(loss_scale, "LEAST", 2.0**24)
    monkeypatch.setattr(loss_scale, "FIRST", 2.0**24)
    with pytest.raises(LossExploded, match=r"in the last 32 steps, up to step 32: train\.compute_dtype=bfloat16"):
        train(half(corpus, max_steps=50), tmp_path)


@pytest.mark.parametrize("other", ["bfloat16", "float32"])
def test_other_precisions_say_nothing_of_it(corpus: Path, tmp_path: Path, other: str) -> None:
    out = io.StringIO()
    run, summary = train(half(corpus, max_steps=2, compute_dtype=other), tmp_path, Reporter(out))
    assert summary["skipped_steps"] is None
    assert "skipped" not in out.getvalue()
    assert not [name for name in mx.load(str(run.path / CHECKPOINT)) if "loss_scale" in name]


@pytest.mark.parametrize(("before", "after"), [(mx.bfloat16, mx.float16), (mx.float16, mx.bfloat16)], ids=str)
def test_a_run_goes_on_where_auto_means_another_precision(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: mx.Dtype, after: mx.Dtype
) -> None:
    """On another chip, or by a version that chose bfloat16 for every GPU; also a checkpoint without a scale."""
    config = half(corpus, compute_dtype="auto")
    monkeypatch.setattr(device, "default_compute_dtype", lambda: before)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, StopAfter(3))
    (folder,) = tmp_path.iterdir()
    monkeypatch.setattr(device, "default_compute_dtype", lambda: after)
    summary = trainer.resume(folder, reporter=quiet())
    assert summary["num_steps"] == 6
    assert summary["skipped_steps"] == (0 if after == mx.float16 else None)
    assert losses(Run.open(folder))[-1] < losses(Run.open(folder))[0] - 0.2


def test_it_is_evaluated_and_sampled(corpus: Path, tmp_path: Path) -> None:
    config = half(corpus, max_steps=12)
    run, summary = train(config, tmp_path / "half")
    _, exact = train(half(corpus, max_steps=12, compute_dtype="float32"), tmp_path / "exact")
    assert summary["val_bpb"] == pytest.approx(exact["val_bpb"], rel=0.01)
    assert trainer.evaluate_run(run.path).val_bpb == summary["val_bpb"]
    model = trained_model(run)
    assert model.compute_dtype == mx.float16
    ids, rng = [open_data(config).tokenizer.bos_id], np.random.default_rng(0)
    for temperature in (0.0, 1.0):
        assert 0 <= next_token(model, ids, temperature, rng) < 300
