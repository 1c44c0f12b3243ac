"""The simulator compiles for macOS on arm64, and runs on emulated arm64 Linux, where the tools for it are installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mlx_autoresearch

SCRIPT = Path(__file__).parents[2] / "scripts/cross_compile.py"


def cross_compile(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    source = str(Path(mlx_autoresearch.__file__ or "").parents[1])
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": source, **environment},
    )


@pytest.mark.slow
@pytest.mark.parametrize("system", ["macos", "linux"])
def test_arm64(system: str) -> None:
    done = cross_compile(system)
    if done.returncode == 2:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr


def test_one_line_says_what_is_missing(tmp_path: Path) -> None:
    done = cross_compile("linux", PATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == (
        "cross_compile: aarch64-linux-gnu-g++ is missing: apt install qemu-user g++-aarch64-linux-gnu\n"
    )
