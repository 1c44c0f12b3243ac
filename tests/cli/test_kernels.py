"""`mlx-autoresearch kernels`: table, exit codes, a kernel of the user's own, a machine without MLX."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from typer.testing import CliRunner

from mlx_autoresearch.cli.kernels import kernels
from mlx_autoresearch.errors import UserError
from tests.support.compiler_paths import compiler_path, needs_clang, needs_compiler, needs_gcc

DOUBLE = "const uint i = thread_position_in_grid.x;\nif (i < x_shape[0])\n  y[i] = 2.0f * x[i];\n"
DESCRIPTION = """
inputs:
  x: {dtype: float32, shape: [n]}
outputs:
  y: {dtype: float32, shape: [n]}
grid: ["32 * ceil_div(n, 32)", 1, 1]
threadgroup: [32, 1, 1]
cases: [{n: 1}, {n: 50}]
"""


NO_BACKEND = """
import sys
class NoBackend:
    def find_spec(self, name, path=None, target=None):
        if name == "mlx.core":
            raise ImportError("libmlx.so: cannot open shared object file: No such file or directory")
sys.meta_path.insert(0, NoBackend())
"""


@pytest.fixture
def double(tmp_path: Path) -> Path:
    """A user's kernel: three files in a folder."""
    (tmp_path / "double.metal").write_text(DOUBLE)
    (tmp_path / "double.yaml").write_text(DESCRIPTION)
    (tmp_path / "double.py").write_text("def definition(x):\n    return {'y': 2 * x}\n")
    return tmp_path / "double.metal"


@needs_compiler
def test_a_users_kernel_passes(double: Path) -> None:
    result = CliRunner().invoke(kernels, ["verify", str(double), "--seed", "0", "--seed", "5", "--shape", "n=33"])
    assert result.exit_code == 0, result.output
    assert "double" in result.output and " 2 " in result.output


@needs_compiler
def test_a_finding_is_shown_with_its_line_and_exits_with_1(double: Path) -> None:
    double.write_text(DOUBLE.replace("if (i < x_shape[0])", "if (i <= x_shape[0])"))
    result = CliRunner().invoke(kernels, ["verify", str(double), "--seed", "0"])
    assert result.exit_code == 1
    assert "(n=50; seed 0): device-out-of-bounds at double.metal:3" in result.output


@pytest.mark.parametrize("arguments", [["verify"], ["verify", "rope", "--on", "cuda"], ["tune"], ["bench"]])
def test_without_an_mlx_backend_every_command_says_what_to_install(arguments: list[str], tmp_path: Path) -> None:
    """As after `pip install` without extras on Linux: the package mlx is there, its library is not."""
    (tmp_path / "sitecustomize.py").write_text(NO_BACKEND)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    command = [sys.executable, "-m", "mlx_autoresearch", "kernels", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "libmlx.so" in done.stderr and "mlx_autoresearch[cpu]" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "no kernel 'nonsense'"),
        (["rope", "--shape", "T"], "expected NAME=VALUE"),
        pytest.param(["rope", "--shape", "Q=3"], "unknown size 'Q'", marks=needs_compiler),
        (["rope", "--compiler", "/bin/true"], "is not a compiler"),
    ],
)
def test_wrong_use_is_a_user_error(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(kernels, ["verify", *arguments])
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)


def test_metal_says_why_it_cannot() -> None:
    if mx.metal.is_available():
        pytest.skip("this machine has Metal")
    result = CliRunner().invoke(kernels, ["verify", "--on", "metal"])
    assert isinstance(result.exception, UserError)
    assert "no Metal device: a Mac" in str(result.exception)


@needs_clang
def test_coverage_names_what_is_not_reached_and_exits_with_1(double: Path) -> None:
    result = CliRunner().invoke(kernels, ["verify", str(double), "--seed", "0", "--coverage"])
    assert result.exit_code == 1
    assert "  ceil_div(n, 32): never exactly one tile\n  ceil_div(n, 32): never more than two tiles\n" in result.output
    description = double.with_suffix(".yaml")
    description.write_text(DESCRIPTION.replace("{n: 50}", "{n: 50}, {n: 32}, {n: 70}"))
    result = CliRunner().invoke(kernels, ["verify", str(double), "--seed", "0", "--coverage"])
    assert result.exit_code == 0, result.output
    assert "double: 1 condition, 0 loops: all reached or argued\n  sizes: n 1...70\n" in result.output


@needs_clang
def test_a_false_reason_exits_with_1(double: Path) -> None:
    description = double.with_suffix(".yaml")
    unreachable = 'unreachable: {"double.metal: i < x_shape[0]: never false": it is}\n'
    description.write_text(DESCRIPTION.replace("{n: 50}", "{n: 50}, {n: 32}, {n: 70}") + unreachable)
    result = CliRunner().invoke(kernels, ["verify", str(double), "--seed", "0", "--coverage"])
    assert result.exit_code == 1
    assert "unreachable, says the YAML, but it is not: double.metal: i < x_shape[0]: never false" in result.output


@needs_gcc
def test_coverage_without_clang_is_refused_in_one_line(double: Path) -> None:
    with pytest.raises(UserError, match="or leave out --coverage") as raised:
        arguments = ["verify", str(double), "--coverage", "--compiler", str(compiler_path("gcc"))]
        CliRunner().invoke(kernels, arguments, catch_exceptions=False)
    assert "\n" not in str(raised.value)


def test_coverage_is_no_matter_of_a_gpu(double: Path) -> None:
    with pytest.raises(UserError, match="in the simulator"):
        CliRunner().invoke(kernels, ["verify", str(double), "--coverage", "--on", "metal"], catch_exceptions=False)
