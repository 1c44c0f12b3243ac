"""The scripts in benchmarks/ still run, as far as they do on any machine; what they measure is not looked at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlx_autoresearch.machine import device
from tests.support.compiled_loops import needs_gcc

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=BENCHMARKS.parent, capture_output=True, text=True)


def test_train_step_compares_with_a_plain_port() -> None:
    done = run("benchmarks/train_step.py", "configs/tiny.yaml")
    assert done.returncode == 0, done.stderr
    assert "plain MLX" in done.stdout and "ratio of medians" in done.stdout


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


@pytest.mark.skipif(device.is_gpu(), reason="the limits below are for a CPU's peak")
def test_memory_is_estimated_beside_what_a_step_takes() -> None:
    """The one figure that is looked at: the estimate is to hold on any CPU, within a fifth."""
    done = run("benchmarks/memory.py", "--rows", "4", "--kernels", "mlx", "configs/default.yaml")
    assert done.returncode == 0, done.stderr
    row = done.stdout.splitlines()[-1].split("|")
    assert row[2:5] == [" default.yaml ", " 4 ", " mlx "]
    assert 0.8 < float(row[7]) < 1.2
