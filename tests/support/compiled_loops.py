"""Processes in which MLX needs one compiled loop, and what they leave."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_autoresearch.machine import device, system
from mlx_autoresearch.machine.compiled import loops_folder

needs_gcc = pytest.mark.skipif(
    not system.is_linux() or not device.cpu_compiler_available(),
    reason="MLX compiles loops with g++ only, and they are ELF libraries on Linux only",
)

_COMPILE = """
import mlx_autoresearch
import mlx.core as mx
from mlx_autoresearch.machine import compiled
from contextlib import nullcontext
mx.set_default_device(mx.cpu)
with compiled.kept() if {kept} else nullcontext():
    print(mx.compile(lambda x: mx.exp(x) * 2 + x)(mx.array([0.1, 0.2, 0.3])).tolist())
"""


def compile_loop(temporary: Path, *, kept: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process that compiles one loop, or finds it, below `temporary`; it prints what the loop computes."""
    temporary.mkdir(parents=True, exist_ok=True)
    env = os.environ | {"TMPDIR": str(temporary)} | environment
    command = [sys.executable, "-c", _COMPILE.format(kept=kept)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def loops(temporary: Path) -> list[Path]:
    """The compiled loops below `temporary`."""
    return sorted(loops_folder(temporary).glob("lib*.so"))
