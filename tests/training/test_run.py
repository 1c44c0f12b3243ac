"""A run's folder: written whole or not at all, read back to the same, and every damage named in one line."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_autoresearch.config.load import validate_config
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.machine import files
from mlx_autoresearch.recipe.model import GPT
from mlx_autoresearch.recipe.optimizer import MuonAdamW
from mlx_autoresearch.training import run as run_module
from mlx_autoresearch.training.files import CHECKPOINT, CONFIG, INFO, METRICS
from mlx_autoresearch.training.run import Run

INFORMATION = {"data": {"val_sha256": "0" * 64}}


def make_config(n_embd: int = 32, n_layer: int = 2) -> Config:
    model = {"n_layer": n_layer, "n_head": 2, "n_kv_head": 1, "n_embd": n_embd, "sequence_len": 32}
    return validate_config({"model": model, "train": {"device_batch_size": 2, "total_batch_size": 64}}, "the test")


def make_model(config: Config, seed: int) -> tuple[GPT, MuonAdamW]:
    """A model and an optimizer whose arrays all depend on `seed`."""
    mx.random.seed(seed)
    model = GPT(config.gpt_config(), compute_dtype=mx.float32)
    optimizer = MuonAdamW.for_gpt(model, **config.optimizer.model_dump())
    optimizer.init(model.parameters())
    for entries in optimizer.state.values():
        entries |= {name: array + seed for name, array in entries.items()}
    return model, optimizer


def arrays(*trees) -> dict[str, list]:
    return {name: array.tolist() for tree in trees for name, array in tree_flatten(tree)}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(make_config(), tmp_path / "runs", "test", INFORMATION)


@pytest.fixture
def checkpointed(run: Run) -> Run:
    run.save_checkpoint(*make_model(make_config(), seed=1), {"step": 7})
    return run


def error_of(function, *arguments) -> str:
    with pytest.raises(UserError) as error:
        function(*arguments)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def temporaries(run: Run) -> list[str]:
    return [path.name for path in run.path.iterdir() if path.name.startswith(".")]


def test_a_new_run_holds_its_configuration_and_what_made_it(run: Run):
    assert run.path.name.endswith("-test")
    assert Run.open(run.path).config() == make_config()
    info = run.info()
    assert info["data"] == INFORMATION["data"]
    assert {"command", "python", "platform", "packages", "git_commit"} <= info.keys()
    assert {"mlx", "numpy"} <= info["packages"].keys()


def test_runs_of_the_same_second_have_different_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_module.time, "strftime", lambda _: "now")
    names = [Run.create(make_config(), tmp_path, "x", {}).path.name for _ in range(3)]
    assert names == ["now-x", "now-x-1", "now-x-2"]


def test_overrides_win_over_the_stored_configuration(run: Run):
    assert run.config(["train.max_steps=3"]).train.max_steps == 3
    assert run.config().train.max_steps is None


def test_what_is_no_run_is_refused_with_the_nearest_one(run: Run, tmp_path: Path):
    runs = run.path.parent
    older = runs / "20000101-000000-test"
    older.mkdir()
    (older / CONFIG).touch()
    assert error_of(Run.open, runs) == f"{runs} is not a run folder; did you mean {run.path}?"
    assert error_of(Run.open, run.path / CHECKPOINT).endswith(f"did you mean {run.path}?")
    assert error_of(Run.open, runs / "20000101-000000").endswith(f"did you mean {older}?")
    assert error_of(Run.open, tmp_path / "nothing").endswith("`mlx-autoresearch train` makes one under runs/")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is damaged (it has no section data, evaluate, model, optimizer, train)"),
        ("data: {}\nmodel: {}\noptimizer: {}\ntrain: {}\n", "is damaged (it has no section evaluate)"),
        ("data: {}\nmod", "is not valid YAML: line 2, column 4"),
        ("train: {seed: x}", ': train.seed must be an integer, got "x"'),
    ],
)
def test_a_damaged_configuration(run: Run, text: str, message: str):
    """A lost section must not come back as its defaults."""
    (run.path / CONFIG).write_text(text)
    assert error_of(run.config).startswith(f"{run.path / CONFIG}{'' if message[0] == ':' else ' '}{message}")


@pytest.mark.parametrize("content", [b"", b'{"data"', b"\xff", b"[]", b"{}", b'{"data": 5}', None], ids=repr)
def test_damaged_information(run: Run, content: bytes | None):
    if content is None:
        (run.path / INFO).unlink()
    else:
        (run.path / INFO).write_bytes(content)
    message = error_of(run.info)
    assert message.startswith(f"{run.path / INFO} is damaged (")
    assert message.endswith("): restore it or start a new run")


def test_metrics_are_read_back_but_for_torn_lines(run: Run):
    assert run.metrics() == []
    records = [{"step": step, "loss": 1 / step} for step in (1, 2, 3)]
    for record in records:
        run.log(record)
    assert run.metrics() == records
    with (run.path / METRICS).open("ab") as file:
        file.write(b'[1, 2]\n5\n{"loss": 1}\n{"step": "x"}\n\xff\xfe\n{"step": 4, "lo')
    assert run.metrics() == records
    run.truncate_metrics(2)
    assert run.metrics() == records[:2]
    assert (run.path / METRICS).read_bytes().count(b"\n") == 2


def test_a_checkpoint_restores_every_array_and_the_state(checkpointed: Run):
    model, optimizer = make_model(make_config(), seed=1)
    other_model, other_optimizer = make_model(make_config(), seed=2)
    expected = arrays(model.parameters(), optimizer.state)
    assert arrays(other_model.parameters(), other_optimizer.state) != expected
    assert checkpointed.load_checkpoint(other_model, other_optimizer) == {"step": 7}
    assert arrays(other_model.parameters(), other_optimizer.state) == expected
    assert temporaries(checkpointed) == []


def test_weights_can_be_had_without_the_optimizer(checkpointed: Run):
    model, _ = make_model(make_config(), seed=2)
    checkpointed.load_checkpoint(model)
    assert arrays(model.parameters()) == arrays(make_model(make_config(), seed=1)[0].parameters())


def test_a_failed_write_keeps_the_old_checkpoint(checkpointed: Run, monkeypatch: pytest.MonkeyPatch):
    before = (checkpointed.path / CHECKPOINT).read_bytes()

    def full_disk(path: str, *_: object) -> None:
        Path(path).write_bytes(before[:100])
        raise RuntimeError("[write] Unable to write 4000 bytes to file.")

    monkeypatch.setattr(mx, "save_safetensors", full_disk)
    message = error_of(checkpointed.save_checkpoint, *make_model(make_config(), seed=2), {"step": 8})
    assert message == (
        f"cannot write to {checkpointed.path}: [write] Unable to write 4000 bytes to file; "
        "free some space, make it writable or choose another folder"
    )
    assert (checkpointed.path / CHECKPOINT).read_bytes() == before
    assert temporaries(checkpointed) == []


def test_killed_writes_leave_one_half_checkpoint_at_most(checkpointed: Run):
    before = (checkpointed.path / CHECKPOINT).read_bytes()
    script = (
        "import os, pathlib, sys\n"
        "import mlx.core as mx\n"
        "from tests.training.test_run import Run, make_config, make_model\n"
        "def killed(path, *_):\n"
        "    pathlib.Path(path).write_bytes(b'half')\n"
        "    os.kill(os.getpid(), 9)\n"
        "mx.save_safetensors = killed\n"
        "Run(pathlib.Path(sys.argv[1])).save_checkpoint(*make_model(make_config(), seed=2), {'step': 8})\n"
    )
    for _ in range(2):
        root = Path(__file__).parents[2]
        assert subprocess.run([sys.executable, "-c", script, str(checkpointed.path)], cwd=root).returncode == -9
        assert len(temporaries(checkpointed)) == 1
    assert (checkpointed.path / CHECKPOINT).read_bytes() == before
    checkpointed.save_checkpoint(*make_model(make_config(), seed=3), {"step": 9})
    assert temporaries(checkpointed) == []


def test_an_interrupted_write_keeps_the_old_file(run: Run, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    run.save_summary({"val_bpb": 1.0})
    monkeypatch.setattr(files, "flush_to_disk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.save_summary({"val_bpb": 2.0})
    assert json.loads((run.path / "summary.json").read_text()) == {"val_bpb": 1.0}
    assert temporaries(run) == []


@pytest.mark.parametrize("write", [lambda run: run.log({"step": 1}), lambda run: run.save_summary({})])
def test_a_full_disk_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch, write):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    monkeypatch.setattr(Path, "open", full)
    assert error_of(write, run).startswith(f"cannot write to {run.path}: No space left on device; free some space")


def test_where_no_run_can_be_made(tmp_path: Path):
    (tmp_path / "file").touch()
    for root, reason in ((tmp_path / "file", "File exists"), (tmp_path / "file" / "runs", "Not a directory")):
        message = error_of(Run.create, make_config(), root, "x", {})
        assert message.startswith(f"cannot write to {root}: {reason}; ")
    assert "must be UTF-8" in error_of(Run.create, make_config(), tmp_path / "\udcff", "x", {})


def damage(run: Run, how: str) -> None:
    path = run.path / CHECKPOINT
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "no state":
        mx.save_safetensors(str(path), {"model.a": mx.ones(1)})
    else:
        path.write_bytes({"empty": b"", "truncated": content[: len(content) // 2], "garbage": b"\x07" * 999}[how])


@pytest.mark.parametrize("how", ["gone", "empty", "truncated", "garbage", "no state"])
def test_a_damaged_checkpoint(checkpointed: Run, how: str):
    model, optimizer = make_model(make_config(), seed=2)
    damage(checkpointed, how)
    expected = "holds no checkpoint" if how == "gone" else f"{CHECKPOINT} is damaged (it is no checkpoint of a run)"
    for arguments in ((model,), (model, optimizer)):
        assert expected in error_of(checkpointed.load_checkpoint, *arguments)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"n_embd": 64}, "model.lm_head.weight must be (4096, 64), got (4096, 32)"),
        ({"n_layer": 3}, "model.resid_lambdas must be (3,), got (2,)"),
        ({"n_layer": 1}, "model.resid_lambdas must be (1,), got (2,)"),
    ],
)
def test_a_checkpoint_of_another_model_changes_nothing(checkpointed: Run, other: dict[str, int], message: str):
    model, optimizer = make_model(make_config(**other), seed=2)
    before = arrays(model.parameters(), optimizer.state)
    for arguments in ((model,), (model, optimizer)):
        assert message in error_of(checkpointed.load_checkpoint, *arguments)
    assert arrays(model.parameters(), optimizer.state) == before


def test_a_checkpoint_without_the_optimizer_cannot_be_resumed(checkpointed: Run):
    path = checkpointed.path / CHECKPOINT
    saved, metadata = mx.load(str(path), return_metadata=True)
    mx.save_safetensors(str(path), {k: v for k, v in saved.items() if k.startswith("model.")}, metadata)
    model, optimizer = make_model(make_config(), seed=2)
    assert checkpointed.load_checkpoint(model) == {"step": 7}
    assert "is of another model" in error_of(checkpointed.load_checkpoint, model, optimizer)
