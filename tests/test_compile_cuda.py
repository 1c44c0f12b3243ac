"""scripts/compile_cuda.py: its sources, and what it says. It compiles only where NVIDIA's wheels are installed."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from mlx_autoresearch.kernels.registry import find_kernel

PATH = Path(__file__).parents[1] / "scripts/compile_cuda.py"
SCRIPT = runpy.run_path(str(PATH))


def functions(name: str, architecture: str) -> list[str]:
    """The names of the functions compiled for a kernel."""
    made = SCRIPT["sources"](find_kernel(name), architecture)
    return [re.findall(r"__global__ void (\w+)\(", source)[-1] for source in made]


def test_a_source_for_every_template_and_the_own_one_where_it_is_named() -> None:
    forward = "flash_attention_forward"
    assert set(functions(forward, "sm_80")) == {forward}
    everywhere, hopper = functions(forward, "sm_80"), functions(forward, "sm_90a")
    assert set(hopper) == {forward, f"{forward}_sm_90"}
    assert hopper.count(forward) >= everywhere.count(forward) >= 5
    assert hopper.count(f"{forward}_sm_90") == 4  # two dtypes, two head dims


def test_arguments_are_those_that_mlx_gives() -> None:
    source = next(iter(SCRIPT["sources"](find_kernel("rope"), "sm_80")))
    (arguments,) = re.findall(r"__global__ void rope\(([^)]*)\)", source)
    assert re.match(r"const \w+\* x, const __grid_constant__ Shape x_shape, const uint64_t\* frequencies, ", arguments)
    assert arguments.endswith("* y")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(PATH), *arguments], capture_output=True, text=True, check=False)


def test_an_unknown_architecture_and_a_missing_compiler_end_in_a_line() -> None:
    done = run("sm_61")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("compile_cuda: sm_61: the architectures are sm_75, ")
    if find_spec("nvidia") is None:
        done = run()
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(r"compile_cuda: nvidia/\w+ is missing: pip install nvidia-[\w-]+-cu12\n", done.stderr)


@pytest.mark.skipif(find_spec("nvidia") is None, reason="NVIDIA's wheels are not installed")
def test_a_wrong_kernel_is_told() -> None:
    compiler = SCRIPT["Compiler"]()
    right = 'extern "C" __global__ void f(float* x) { x[0] = 1.0f; }'
    assert compiler.compile(right, "sm_80").spilled == 0
    assert "error" in compiler.compile(right.replace("x[0]", "y[0]"), "sm_80")
    assert "sm_80" in compiler.compile(right.replace("x[0] = 1.0f", 'asm("cp.async.wait_all;")'), "sm_75")
