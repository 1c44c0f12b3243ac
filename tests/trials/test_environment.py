"""A confined process starts with loops that it can load, and with none that is cut short; it can change nobody's."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from mlx_autoresearch.machine import compiled, device, preamble
from mlx_autoresearch.machine.compiled import kept_files, loops_folder
from mlx_autoresearch.trials.environment import trial_environment
from tests.support.compiled_loops import compile_loop, loops, needs_gcc

pytestmark = needs_gcc


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A loop as MLX has compiled it."""
    temporary = tmp_path_factory.mktemp("temporary")
    assert compile_loop(temporary).returncode == 0
    (found,) = loops(temporary)
    return found


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_AUTORESEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_loop_that_is_cut_short_is_compiled_again_and_others_are_used(library: Path, tmp_path: Path) -> None:
    shared = loops_folder(tmp_path)
    shared.mkdir(parents=True)
    (shared / library.name).write_bytes(library.read_bytes()[:5000])
    shutil.copyfile(library, shared / "libother.so")
    shutil.copyfile(library, shared / "tmp_1234.so")  # what MLX's linker writes to
    scratch = tmp_path / "scratch"
    env = trial_environment(scratch, confined=True)
    assert env["TMPDIR"] == str(scratch)
    assert [path.name for path in loops_folder(scratch).iterdir() if path.is_file()] == ["libother.so"]
    assert compile_loop(tmp_path).returncode != 0, "MLX should fail at a loop that is cut short"
    assert compile_loop(scratch).returncode == 0


def test_a_confined_process_gets_copies_of_what_the_cache_keeps(tmp_path: Path) -> None:
    assert compile_loop(tmp_path / "before", kept=True).returncode == 0
    (found,) = kept_files()
    trial_environment(tmp_path / "scratch", confined=True)
    (copy,) = loops(tmp_path / "scratch")
    assert copy.read_bytes() == found.read_bytes()
    assert not copy.is_symlink() and not copy.samefile(found)


@pytest.mark.skipif(preamble._headers() is None, reason="g++ is not GCC, or MLX came without its headers")
def test_a_confined_process_compiles_with_the_shared_header(tmp_path: Path) -> None:
    trial_environment(tmp_path / "scratch", confined=True)
    assert preamble.is_precompiled(loops_folder(tmp_path / "scratch"))


def test_on_cuda_a_confined_process_gets_copies_in_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "ptx"
    shared.mkdir()
    for suffix in (".ptx", ".txt", ".cu"):
        (shared / f"a{suffix}").write_text("// version 9\n")
    monkeypatch.setenv(compiled.PTX_FOLDER, str(shared))
    monkeypatch.setattr(device, "kernel_backend", lambda: "cuda")
    own = Path(trial_environment(tmp_path / "scratch", confined=True)[compiled.PTX_FOLDER])
    assert own.is_relative_to(tmp_path / "scratch")
    assert sorted(os.listdir(own)) == ["a.ptx", "a.txt"]


def test_a_trusted_process_shares_its_loops(tmp_path: Path) -> None:
    assert trial_environment(tmp_path / "scratch", confined=False)["TMPDIR"] == tempfile.gettempdir()
    assert not os.listdir(tmp_path)
