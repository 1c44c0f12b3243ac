"""`mlx-autoresearch bench`: its file, and bad input in one line before anything is measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TINY = str(Path(__file__).parents[2] / "configs/tiny.yaml")


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mlx_autoresearch", "bench", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_figures_go_into_a_new_file_named_after_the_machine(tmp_path: Path) -> None:
    done = run(TINY, "--steps", "1", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.iterdir()
    assert done.stdout.splitlines()[-1] == f"figures: {file.name}"
    content = json.loads(file.read_text())
    assert file.name.startswith("mlx-autoresearch-") and content["date"].replace("-", "") in file.name
    assert [len(c["step_seconds"]) for c in content["configurations"]] == [1]
    assert str(tmp_path) not in file.read_text()
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_settings_and_a_file_of_the_users_choice(tmp_path: Path) -> None:
    done = run(TINY, "train.seed=7", "--steps", "2", "--json", "mine.json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (configuration,) = json.loads((tmp_path / "mine.json").read_text())["configurations"]
    assert configuration["settings"]["train.seed"] == 7 and len(configuration["step_seconds"]) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--json", "nowhere/x.json"], "there is no folder nowhere"),
        (["--json", "."], "is a folder"),
        (["--steps", "0"], "--steps: expected at least 1, got 0"),
        (["nowhere.yaml"], "nowhere.yaml"),
        (["model.dpeth=3"], "model.depth"),
        (["train.device_batch_size=3"], "train.total_batch_size must be a multiple"),
        ([TINY, "recipe.no_such_setting=1"], "no_such_setting"),
        ([TINY, "model.n_layer=256", "model.n_embd=65536"], "GiB of memory, more than"),
    ],
    ids=str,
)
def test_bad_input_is_one_line(arguments: list[str], says: str, tmp_path: Path) -> None:
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ") and says in last and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
