"""The portable context switch does what the assembly does. A process has one runtime, so this one gets its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mlx_autoresearch
from mlx_autoresearch.machine import system
from tests.support.compiler_paths import needs_compiler

SCRIPT = """
import numpy as np
from mlx_autoresearch.simulator import find_compiler, metal_kernel, simulate
from mlx_autoresearch.simulator.abi import load_runtime
load_runtime(find_compiler(), portable_fibers=True)
body = '''
threadgroup float t[256];
const uint i = thread_index_in_threadgroup;
t[i] = simd_sum(x[i]);
threadgroup_barrier(mem_flags::mem_threadgroup);
y[i] = t[255 - i];
'''
x = np.arange(256, dtype=np.float32)
y, = simulate(metal_kernel("portable", ["x"], ["y"], body), [x], output_shapes=[(256,)], output_dtypes=["float32"],
              grid=(256, 1, 1), threadgroup=(256, 1, 1))
np.testing.assert_array_equal(y, x.reshape(8, 32).sum(1)[::-1].repeat(32))
"""


@needs_compiler
@pytest.mark.skipif(system.is_macos(), reason="macOS has no other switch than the assembly")
def test_ucontext_fibers() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(mlx_autoresearch.__file__ or "").parents[1])}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
