"""A whole trial of changed code, confined: it trains and is scored, and sees neither held-out text nor our files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.data.parts import HELD_OUT
from mlx_autoresearch.data.prepared import PreparedData
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.sandbox import mounts
from mlx_autoresearch.training.data import find_data
from mlx_autoresearch.trials.limits import Limits
from mlx_autoresearch.trials.trial import run_trial
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
    trial = run_trial(tiny, seed=1, folder=folder, code=code, limits=Limits(), mark=str(tmp_path))
    assert trial.steps == 6 and trial.val_bpb
    said = (tmp_path / "runs/1.txt").read_text()
    assert "READ" not in said
    assert said.count("kept from") >= len(paths) - (not os.path.exists("/etc/shadow"))


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
