"""A confined process starts with kernels that it can load, and with none that is cut short."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

from mlx_autoresearch.machine import device
from mlx_autoresearch.trials.environment import copy_kernels, is_complete, trial_environment

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="MLX's kernels are ELF libraries on Linux only"),
    pytest.mark.skipif(not device.cpu_compiler_available(), reason="without g++ MLX compiles no kernels"),
]

COMPILE = """
import mlx_autoresearch
import mlx.core as mx
mx.set_default_device(mx.cpu)
mx.eval(mx.compile(lambda x: mx.exp(x) * 2 + x)(mx.ones(3)))
"""


def run(temporary: Path) -> subprocess.CompletedProcess[str]:
    """A process in which MLX needs one kernel."""
    env = os.environ | {"TMPDIR": str(temporary)}
    return subprocess.run([sys.executable, "-c", COMPILE], env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kernel as MLX has compiled it."""
    temporary = tmp_path_factory.mktemp("temporary")
    assert run(temporary).returncode == 0
    (library,) = (temporary / "mlx" / version("mlx") / "cpu").glob("lib*.so")
    return library


def test_a_kernel_is_complete_only_with_its_last_byte(compiled: Path, tmp_path: Path) -> None:
    assert is_complete(compiled)
    whole = compiled.read_bytes()
    part = tmp_path / "part.so"
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        part.write_bytes(whole[:length])
        assert not is_complete(part), length


@pytest.mark.parametrize("header", [bytes(64), b"\x7fELF\x02\x01" + bytes(58)])
def test_a_file_whose_header_is_still_missing_is_not_complete(compiled: Path, tmp_path: Path, header: bytes) -> None:
    """The GNU linker leaves room for the header and writes it after the code."""
    part = tmp_path / "part.so"
    part.write_bytes(header + compiled.read_bytes()[64:])
    assert not is_complete(part)


def test_a_kernel_that_is_cut_short_is_compiled_again_and_others_are_used(
    compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "mlx" / version("mlx") / "cpu"
    shared.mkdir(parents=True)
    (shared / compiled.name).write_bytes(compiled.read_bytes()[:5000])
    shutil.copyfile(compiled, shared / "libother.so")
    shutil.copyfile(compiled, shared / "tmp_1234.so")  # what MLX's linker writes to
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    scratch = tmp_path / "scratch"
    env = trial_environment(scratch, confined=True)
    assert env["TMPDIR"] == str(scratch)
    copies = scratch / "mlx" / version("mlx") / "cpu"
    assert os.listdir(copies) == ["libother.so"]
    assert run(tmp_path).returncode != 0, "MLX should fail at a kernel that is cut short"
    assert run(scratch).returncode == 0


def test_a_trusted_process_shares_its_kernels(tmp_path: Path) -> None:
    assert trial_environment(tmp_path, confined=False)["TMPDIR"] == tempfile.gettempdir()
    assert not os.listdir(tmp_path)


def test_a_copy_is_no_link(compiled: Path, tmp_path: Path) -> None:
    copy_kernels(compiled.parent, tmp_path / "copies")
    copy = tmp_path / "copies" / compiled.name
    assert copy.read_bytes() == compiled.read_bytes()
    assert not copy.samefile(compiled)


def test_there_need_be_no_kernels(tmp_path: Path) -> None:
    copy_kernels(tmp_path / "no", tmp_path / "copies")
    assert os.listdir(tmp_path / "copies") == []
