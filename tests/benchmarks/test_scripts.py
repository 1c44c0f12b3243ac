"""The scripts in benchmarks/ still run, as far as they do on any machine; what they measure is not looked at."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_autoresearch.machine import device
from tests.support.compiled_loops import needs_gcc

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=BENCHMARKS.parent, capture_output=True, text=True)


@pytest.mark.parametrize("settings", [[], ["train.compute_dtype=float16", "train.total_batch_size=256"]])
def test_step_compares_with_a_plain_port(settings: list[str]) -> None:
    """PyTorch's rows take minutes to compile on a CPU; test_torch_gpt.py looks at their model."""
    sides = ["--sides", "plain,ours", "--rounds", "2", "--steps", "1"]
    done = run("benchmarks/step.py", *sides, "configs/tiny.yaml", *settings)
    assert done.returncode == 0, done.stderr
    rows = [line.split("  ")[0] for line in done.stdout.splitlines()[2:]]
    assert rows[:2] == ["ours", "plain MLX"] and rows[2].startswith("ours / plain MLX: ")
    losses = re.findall(r"loss ([0-9.]+)", done.stderr)
    assert len(losses) == 2 and float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["recipe.no_such_setting=1"], "no_such_setting"),
        (["--sides", "ours,tinygrad"], "error: --sides: expected names of ours, composed, plain, torch by commas"),
        (["--rounds", "0"], "--rounds and --steps must be at least 1"),
        (["model.dpth=3"], "model.depth"),
        (["nowhere.yaml"], "nowhere.yaml"),
    ],
    ids=str,
)
def test_step_refuses_bad_input_in_a_line(arguments: list[str], says: str) -> None:
    done = run("benchmarks/step.py", *arguments)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr


def test_step_goes_on_without_a_side_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('no such rival today')\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    done = run("benchmarks/step.py", "--sides", "torch,ours", "--rounds", "1", "--steps", "1", "configs/tiny.yaml")
    assert done.returncode == 1 and "no such rival today" in done.stderr
    assert done.stdout.splitlines()[-1].startswith("ours  ")
    assert done.stderr.splitlines()[-1] == "error: not all sides were measured"


@needs_gcc
@pytest.mark.skipif(device.is_gpu(), reason="it is about a CPU")
def test_cold_start_computes_the_same_before_and_after_a_reboot() -> None:
    done = run("benchmarks/cold_start.py", "--ours", "configs/tiny.yaml", "model.n_layer=1")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[2:]]
    assert len({row[-1] for row in rows}) == 1, "the first loss"
    assert [int(row[-2]) > 0 for row in rows] == [True, False]


@pytest.mark.skipif(device.is_gpu(), reason="here it runs, for minutes")
@pytest.mark.parametrize("name", ["kernels", "loss_curves"])
def test_what_needs_a_gpu_says_so(name: str) -> None:
    done = run(f"benchmarks/{name}.py")
    assert done.returncode == 1
    assert done.stderr.startswith(f"benchmarks/{name}.py needs a GPU") and done.stderr.count("\n") == 1


@pytest.mark.skipif(device.is_gpu(), reason="it is about a CPU")
def test_loss_curves_show_every_precision_beside_float32() -> None:
    small = ["configs/tiny.yaml", "model.n_layer=1", "model.n_embd=32", "model.sequence_len=16"]
    done = run("benchmarks/loss_curves.py", "--kernels", "mlx", *small, "train.total_batch_size=64")
    assert done.returncode == 0, done.stderr
    rows = {line.split()[1]: line.split()[2:] for line in done.stdout.splitlines() if line.startswith("mlx ")}
    assert list(rows) == ["float32", "bfloat16", "float16"]
    assert [len(row) for row in rows.values()] == [8, 8, 9]  # steps are skipped in float16 alone
    assert all(float(row[-3]) < 0.9 * float(row[-6]) for row in rows.values()), "they learn"
    assert float(rows["float32"][-1]) == 0.0
    refused = run("benchmarks/loss_curves.py", "--dtypes", "float8", *small)
    assert refused.returncode == 2 and "unknown float8" in refused.stderr


@pytest.mark.skipif(device.is_gpu(), reason="the limits below are for a CPU's peak")
def test_memory_is_estimated_beside_what_a_step_takes() -> None:
    """The one figure that is looked at: the estimate is to hold on any CPU, within a fifth."""
    done = run("benchmarks/memory.py", "--rows", "4", "--kernels", "mlx", "configs/default.yaml")
    assert done.returncode == 0, done.stderr
    row = done.stdout.splitlines()[-1].split("|")
    assert row[2:5] == [" default.yaml ", " 4 ", " mlx "]
    assert 0.8 < float(row[7]) < 1.2
