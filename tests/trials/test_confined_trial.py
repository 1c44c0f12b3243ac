"""A whole trial of changed code, confined: it trains and is scored, and sees neither held-out text nor our files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.data.parts import HELD_OUT
from mlx_autoresearch.data.prepared import PreparedData
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.sandbox import mounts
from mlx_autoresearch.training.data import find_data
from mlx_autoresearch.trials import trial
from mlx_autoresearch.trials.limits import Limits
from mlx_autoresearch.trials.score import score_confined
from tests.support.confinement import confined
from tests.support.laboratory import make_repository

SPY = """
import os as _os
for _path in {paths!r}:
    for _look in (open, _os.listdir):
        try:
            _look(_path)
        except NotADirectoryError:
            pass
        except OSError as _error:
            print("kept from", _path, type(_error).__name__, flush=True)
        else:
            print("READ", _path, flush=True)
"""

# Trained after its digest was taken, or so it could have been; lies wherever a training can write.
HIDES = """
import sys as _sys
from pathlib import Path as _Path
import mlx.core as _mx
from mlx_autoresearch.training.run import Run as _Run
_save = _Run.save_checkpoint
def _hide(self, model, optimizer, state):
    optimizer.state["hidden"] = {"a": _mx.ones(1000)}
    _save(self, model, optimizer, state | {"hidden": "x" * 1000})
    for name in ("checkpoint.safetensors", "metrics.jsonl", "run.json"):
        with open(self.path / name, "ab") as file:
            file.write(b"hidden")
    (self.path.parent / "hidden").write_text("hidden")
_Run.save_checkpoint = _hide
if "logits" in _sys.argv:
    _run = _Path(_sys.argv[2])
    for _path in (*(_run / name for name in ("metrics.jsonl", "run.json", "summary.json")), _run, _run.parent):
        try:
            _path.read_bytes() if _path.is_file() else list(_path.iterdir())
        except OSError:
            continue
        raise SystemExit(f"READ {_path}")
    if b"hidden" in (_run / "checkpoint.safetensors").read_bytes():
        raise SystemExit("READ the checkpoint")
"""


@confined
@pytest.mark.parametrize("views", [True, False], ids=["namespaces", "no namespaces"])
def test_a_trial_of_changed_code_reads_nothing_that_it_need_not(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, views: bool
) -> None:
    """Wherever the recipe is imported, in training and in scoring, it looks."""
    if not views:
        monkeypatch.setattr(mounts, "obstacle", lambda: "they are not allowed")
    code = make_repository(tmp_path / "code")
    data = find_data(tiny)
    secret = tmp_path / "runs" / "ledger.jsonl"
    secret.parent.mkdir()
    secret.write_text("{}")
    (text, *_) = tiny.data.source.files(tmp_path)
    held_out = [data.path / name for part in HELD_OUT for name in data.manifest.splits[part].files]
    paths = [*held_out, data.path / "held_out.npy", text[1], secret, tmp_path, Path.home(), Path("/etc/shadow")]
    schedule = code / "src/mlx_autoresearch/recipe/schedule.py"
    schedule.write_text(schedule.read_text() + SPY.format(paths=[str(path) for path in paths]))
    folder = tmp_path / "runs" / "1"
    result = trial.run_trial(tiny, seed=1, folder=folder, code=code, limits=Limits(), mark=str(tmp_path))
    assert result.steps == 6 and result.val_bpb
    said = (tmp_path / "runs/1.txt").read_text()
    assert "READ" not in said
    assert said.count("kept from") >= len(paths) - (not os.path.exists("/etc/shadow"))


@confined
def test_nothing_but_the_digested_weights_gets_from_training_to_scoring(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that were trained on after the last step used to lie in metrics.jsonl: 4.232 became 3.500."""
    code = make_repository(tmp_path / "code")
    schedule = code / "src/mlx_autoresearch/recipe/schedule.py"
    schedule.write_text(schedule.read_text() + HIDES)
    folder = tmp_path / "runs" / "1"
    left: list[list[Path]] = []

    def look(*given: Any, scratch: Path, **more: Any) -> Any:
        left.append([path for path in folder.parent.rglob("*") if path.name in ("hidden", "run")])
        return score_confined(*given, scratch=scratch, **more)

    monkeypatch.setattr(trial, "score_confined", look)
    assert trial.run_trial(tiny, seed=1, folder=folder, code=code, limits=Limits(), mark=str(tmp_path)).val_bpb
    assert left == [[]]
    arrays, metadata = mx.load(str(folder / "checkpoint.safetensors"), return_metadata=True)
    assert metadata == {"state": "{}"}
    assert {name.split(".")[0] for name in arrays} == {"model"}


def test_a_checkpoint_larger_than_memory_is_refused_unread(tiny: Config, tmp_path: Path) -> None:
    """One of 1 TiB, which is a hole and takes nothing of the disk, took half an hour to read."""
    code = make_repository(tmp_path / "code")
    schedule = code / "src/mlx_autoresearch/recipe/schedule.py"
    grow = "__import__('os').truncate(self.path / 'checkpoint.safetensors', 1 << 40)"
    schedule.write_text(
        schedule.read_text() + HIDES.replace('    for name in ("ch', f'    {grow}\n    for name in ("ch')
    )
    with pytest.raises(trial.TrialFailed, match=r"output: left 1,099,511,\d+,\d+ bytes in checkpoint\.safetensors"):
        trial.run_trial(tiny, seed=1, folder=tmp_path / "run", code=code, limits=Limits(), mark=str(tmp_path))


def test_what_a_training_reads_of_prepared_data_is_named_and_verified(tiny: Config, tmp_path: Path) -> None:
    data = find_data(tiny)
    names = {path.name for path in data.training_files()}
    assert names == {"manifest.json", "tokenizer.json", *data.manifest.splits["train"].files}
    for name in names:
        shutil.copyfile(data.path / name, tmp_path / name)
    alone = PreparedData(tmp_path, data.manifest)
    alone.verify_training()
    tokens = bytearray((tmp_path / "train.bin").read_bytes())
    tokens[0] ^= 1
    (tmp_path / "train.bin").write_bytes(tokens)
    with pytest.raises(UserError, match=r"train\.bin is damaged"):
        alone.verify_training()
