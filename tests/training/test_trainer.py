from __future__ import annotations

import io
import json
import math
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_autoresearch.config.load import validate_config
from mlx_autoresearch.errors import LossExploded, OutOfMemory, UserError
from mlx_autoresearch.methods import CURRENT
from mlx_autoresearch.recipe import interface
from mlx_autoresearch.training import fit, setup, trainer
from mlx_autoresearch.training.data import open_data
from mlx_autoresearch.training.files import CHECKPOINT, CONFIG, METRICS, SUMMARY
from mlx_autoresearch.training.progress import Reporter
from mlx_autoresearch.training.run import Run
from tests.support.runs import StopAfter, losses, make_config, quiet, train


def test_a_run_is_a_folder_with_everything_in_it(corpus: Path, tmp_path: Path) -> None:
    config = make_config(corpus, max_steps=12)
    run, summary = train(config, tmp_path)
    assert run.config() == config
    assert json.loads((run.path / SUMMARY).read_text()) == summary
    info = run.info()
    assert info["data"]["val_sha256"] == open_data(config).manifest.val_sha256
    assert {"python", "packages", "git_commit"} <= info.keys()
    assert [r["step"] for r in run.metrics()] == list(range(1, 13))
    assert losses(run)[0] == pytest.approx(math.log(300), abs=0.05)
    assert losses(run)[-1] < losses(run)[0] - 0.5
    assert summary["num_steps"] == 12
    assert summary["total_tokens_M"] == 12 * 256 / 1e6
    assert 0 < summary["val_bpb"] < math.log2(300)
    assert not [p for p in run.path.iterdir() if p.name.startswith(".")], "temporary files are left"


def test_same_seed_same_losses_other_seed_other_losses(corpus: Path, tmp_path: Path) -> None:
    first, again, other = (
        train(make_config(corpus, seed=seed), tmp_path / str(i))[0] for i, seed in enumerate((1, 1, 2))
    )
    assert losses(first) == losses(again)
    assert losses(first) != losses(other)


def test_micro_batches_are_the_rows_of_one_large_batch(corpus: Path, tmp_path: Path) -> None:
    """The loss of the first step, before any update: 8 rows at once are 2 x 4 rows; other rows would differ by 1%."""
    whole, parts = (train(make_config(corpus, device_batch_size=rows), tmp_path / str(rows))[0] for rows in (8, 4))
    assert losses(parts)[0] == pytest.approx(losses(whole)[0], rel=1e-5)


def test_evaluate_repeats_the_summary_to_the_last_digit(corpus: Path, tmp_path: Path) -> None:
    run, summary = train(make_config(corpus), tmp_path)
    assert trainer.evaluate_run(run.path).val_bpb == summary["val_bpb"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
@pytest.mark.parametrize("rows", [8, 4])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(corpus: Path, tmp_path: Path, rows, number) -> None:
    config = make_config(corpus, max_steps=9, device_batch_size=rows)
    whole, whole_summary = train(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt, match=r"after step 4; continue with .*--resume"):
        train(config, tmp_path / "parts", StopAfter(4, number))
    (folder,) = (tmp_path / "parts").iterdir()
    summary = trainer.resume(folder, reporter=quiet())
    assert losses(Run.open(folder)) == losses(whole)
    assert summary["val_bpb"] == whole_summary["val_bpb"]
    a, b = (mx.load(str(r.path / CHECKPOINT)) for r in (whole, Run.open(folder)))
    assert a.keys() == b.keys()
    assert all(mx.array_equal(a[name], b[name]) for name in a)


def test_a_run_without_newer_entries_is_resumed_bit_for_bit(corpus: Path, tmp_path: Path) -> None:
    """Its configuration has no section `recipe`, and its checkpoint does not say how many steps were timed."""
    config = make_config(corpus, max_steps=9)
    whole, _ = train(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "parts", StopAfter(4))
    (folder,) = (tmp_path / "parts").iterdir()
    change_state(folder / CHECKPOINT, lambda state: state.pop("timed_steps"))
    text = (folder / CONFIG).read_text()
    (folder / CONFIG).write_text(text.replace("recipe: {}\n", ""))
    assert (folder / CONFIG).read_text() != text
    summary = trainer.resume(folder, reporter=quiet())
    assert losses(Run.open(folder)) == losses(whole)
    assert summary["tokens_per_second"] == pytest.approx(8 * 256 / summary["training_seconds"])


def change_state(checkpoint: Path, change: Callable[[dict], object]) -> None:
    arrays, metadata = mx.load(str(checkpoint), return_metadata=True)
    mx.eval(arrays)
    state = json.loads(metadata["state"])
    change(state)
    mx.save_safetensors(str(checkpoint), arrays, {"state": json.dumps(state)})


def test_a_run_whose_rows_were_packed_otherwise_is_not_resumed(corpus: Path, tmp_path: Path) -> None:
    config = make_config(corpus, seed=5)
    run, _ = train(config, tmp_path)
    assert setup.setup(config, open_data(config)).batches.state_dict()["seed"] == 5
    change_state(run.path / CHECKPOINT, lambda state: state["batches"].pop("version"))
    with pytest.raises(UserError, match=r"packed by version 1 .*: start it anew"):
        trainer.resume(run.path, reporter=quiet())


def test_records_after_the_checkpoint_are_written_again_not_twice(corpus: Path, tmp_path: Path) -> None:
    config = make_config(corpus, max_steps=6)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, StopAfter(3))
    (folder,) = tmp_path.iterdir()
    run = Run.open(folder)
    run.log(run.metrics()[-1] | {"step": 4})  # logged, then killed before a checkpoint
    with (folder / METRICS).open("a") as file:
        file.write('{"step": 5, "lo')  # a torn last line
    trainer.resume(folder, reporter=quiet())
    assert [r["step"] for r in run.metrics()] == [1, 2, 3, 4, 5, 6]


def test_the_length_of_a_resumed_run_may_change_and_nothing_else(corpus: Path, tmp_path: Path) -> None:
    config = make_config(corpus, max_steps=3)
    run, _ = train(config, tmp_path)
    longer = config.model_copy(update={"train": config.train.model_copy(update={"max_steps": 5})})
    assert trainer.resume(run.path, longer, reporter=quiet())["num_steps"] == 5
    other = config.model_copy(update={"train": config.train.model_copy(update={"seed": 3})})
    with pytest.raises(UserError, match=r"only train.checkpoint_every, .* but train.seed differs"):
        trainer.resume(run.path, other, reporter=quiet())


def test_a_resumed_run_may_take_smaller_micro_batches(corpus: Path, tmp_path: Path) -> None:
    """As on a smaller machine: the rows of each step are the same, and so are the losses but for rounding."""
    config = make_config(corpus, max_steps=9)
    train(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "parts", StopAfter(4))
    (folder,) = (tmp_path / "parts").iterdir()
    smaller = config.model_copy(update={"train": config.train.model_copy(update={"device_batch_size": 2})})
    trainer.resume(folder, smaller, reporter=quiet())
    (whole,) = (tmp_path / "whole").iterdir()
    assert losses(Run.open(folder)) == pytest.approx(losses(Run.open(whole)), rel=1e-4)


def test_other_validation_data_is_refused(corpus: Path, tmp_path: Path) -> None:
    run, _ = train(make_config(corpus), tmp_path)
    info = json.loads((run.path / "run.json").read_text())
    info["data"]["val_sha256"] = "0" * 64
    (run.path / "run.json").write_text(json.dumps(info))
    for action in (trainer.evaluate_run, trainer.resume):
        with pytest.raises(UserError, match="validation data has changed"):
            action(run.path)


def test_a_run_of_another_metric_or_packing_is_refused_in_one_line(corpus: Path, tmp_path: Path) -> None:
    """Runs from before methods were recorded have the first ones."""
    run, _ = train(make_config(corpus), tmp_path)
    info = json.loads((run.path / "run.json").read_text())
    assert info["methods"] == asdict(CURRENT)
    for methods in (None, {"metric": CURRENT.metric + 1}):
        (run.path / "run.json").write_text(json.dumps(info | {"methods": methods}))
        for action in (trainer.evaluate_run, trainer.resume):
            with pytest.raises(UserError, match=r"was begun with version [13] of the metric \(now 2\)") as refused:
                action(run.path)
            assert "\n" not in str(refused.value)
    (run.path / "run.json").write_text(json.dumps(info | {"methods": {"packing": 0}}))
    with pytest.raises(UserError, match="version 0 of the packing"):
        trainer.resume(run.path)
    assert trainer.evaluate_run(run.path).val_bpb > 0  # which does not depend on the packing
    (run.path / "run.json").write_text(json.dumps(info | {"methods": {"tokens": 3}}))
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        trainer.evaluate_run(run.path)


def test_the_references_figure_is_measured_when_it_is_asked_for(corpus: Path, tmp_path: Path) -> None:
    run, summary = train(make_config(corpus), tmp_path)
    assert trainer.evaluate_run(run.path).reference_bpb is None
    bpb = trainer.evaluate_run(run.path, reference=True)
    assert bpb.val_bpb == summary["val_bpb"]
    assert bpb.reference_bpb is not None
    assert 0.5 < bpb.reference_bpb / bpb.val_bpb < 2


def test_damaged_tokens_are_refused(corpus: Path, tmp_path: Path) -> None:
    """Of the right size, so that only the hash tells; out of the vocabulary they would crash MLX."""
    config = make_config(corpus)
    run, _ = train(config, tmp_path)
    shards = open_data(config).split("train")
    tokens = Path(shards.tokens.filename)
    good = tokens.read_bytes()
    try:
        tokens.write_bytes(b"\xff\xff" * (len(good) // 2))
        for action in (lambda: train(config, tmp_path), lambda: trainer.resume(run.path, reporter=quiet())):
            with pytest.raises(UserError, match=tokens.name):
                action()
    finally:
        tokens.write_bytes(good)


def test_a_finished_run_goes_on_with_the_next_batch(corpus: Path, tmp_path: Path) -> None:
    """The data goes on where it stopped: a prefetched batch is not a trained one."""
    whole, _ = train(make_config(corpus, max_steps=9, warmdown_ratio=0.0), tmp_path / "whole")
    config = make_config(corpus, max_steps=5, warmdown_ratio=0.0)
    run, _ = train(config, tmp_path / "parts")
    longer = config.model_copy(update={"train": config.train.model_copy(update={"max_steps": 9})})
    trainer.resume(run.path, reporter=quiet())  # nothing left to do, but it saves again
    trainer.resume(run.path, longer, reporter=quiet())
    # Weight decay knows how far the whole run is, so losses are close, not equal; other batches differ by far more.
    assert losses(run)[:5] == pytest.approx(losses(whole)[:5], abs=0.02)
    assert losses(run)[5:] == pytest.approx(losses(whole)[5:], abs=0.05)
    assert run.config() == longer


def test_what_cannot_fit_is_said_before_it_is_tried(corpus: Path, tmp_path: Path, monkeypatch) -> None:
    config = make_config(corpus)
    monkeypatch.setattr(setup.device, "memory_limits", lambda: setup.device.MemoryLimits(2**18, 2**18, 2**18))
    with pytest.raises(OutOfMemory, match=r"training needs about .* of memory, more than there is"):
        train(config, tmp_path)


def test_a_step_that_takes_more_than_the_gpu_recommends_is_told_once(corpus: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(setup, "check_fit", lambda *_: None)
    monkeypatch.setattr(fit.device, "memory_limits", lambda: fit.device.MemoryLimits(2**30, 2**18, 2**30))
    reporter, told = quiet(), []
    monkeypatch.setattr(reporter, "warn", told.append)
    trainer.train(make_config(corpus), runs=tmp_path, reporter=reporter)
    assert [text for text in told if "that Metal recommends" in text] == told[:1]


def test_unprepared_data_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text\n" * 50)
    values = {"data": {"source": {"kind": "text", "paths": [str(tmp_path / "a.txt")]}, "vocab_size": 257}}
    with pytest.raises(UserError, match="run `mlx-autoresearch prepare`"):
        trainer.train(validate_config(values, "the test"), runs=tmp_path / "runs", reporter=quiet())
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("bad, message", [(float("nan"), "is NaN at step 3"), (1e4, "exploded to 1e\\+04 at step 3")])
def test_a_broken_loss_stops_the_run_and_is_the_last_one_logged(
    corpus: Path, tmp_path: Path, monkeypatch, bad, message
) -> None:
    real = interface.make_step

    def make_step(*arguments):
        step, calls = real(*arguments), iter(range(100))
        return lambda batches: (step(batches), mx.array(bad) if next(calls) == 2 else mx.array(5.0))[1]

    monkeypatch.setattr(interface, "make_step", make_step)
    with pytest.raises(LossExploded, match=message):
        train(make_config(corpus), tmp_path)
    (folder,) = tmp_path.iterdir()
    assert losses(Run.open(folder)) == pytest.approx([5.0, 5.0, bad], nan_ok=True)
    assert not (folder / CHECKPOINT).exists()


def test_a_loss_that_sits_at_ln_v_is_named(corpus: Path, tmp_path: Path) -> None:
    """What a kernel that returns zeros looks like: here, learning rates of zero."""
    values = make_config(corpus, max_steps=10).model_dump(mode="json")
    values["optimizer"] |= {"unembedding_lr": 0.0, "embedding_lr": 0.0, "matrix_lr": 0.0, "scalar_lr": 0.0}
    stuck, healthy = io.StringIO(), io.StringIO()
    train(validate_config(values, "the test"), tmp_path, Reporter(stuck))
    train(make_config(corpus, max_steps=10), tmp_path, Reporter(healthy))
    assert stuck.getvalue().count("ln(vocab_size) = 5.704") == 1
    assert "ln(vocab_size)" not in healthy.getvalue()


def test_parameters_and_moments_stay_float32(corpus: Path, tmp_path: Path) -> None:
    run, _ = train(make_config(corpus, max_steps=3), tmp_path)
    arrays = mx.load(str(run.path / CHECKPOINT))
    assert {a.dtype for a in arrays.values()} == {mx.float32}


def test_what_plain_output_looks_like(corpus: Path, tmp_path: Path) -> None:
    out = io.StringIO()
    _, summary = train(make_config(corpus), tmp_path, Reporter(out))
    text = out.getvalue()
    lines = dict(line.split(":", 1) for line in text[text.index("---\n") + 4 :].splitlines())
    assert list(lines)[:3] == ["val_bpb", "training_seconds", "total_seconds"]
    assert lines["val_bpb"].strip() == f"{summary['val_bpb']:.6f}"
    keys = "peak_memory_mb eval_peak_memory_mb mfu_percent total_tokens_M num_steps num_params_M depth"
    assert set(keys.split()) <= lines.keys()
    assert "step 00001 (0.0%) | loss: 5." in text
