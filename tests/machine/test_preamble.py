"""The precompiled header: MLX's own compilations take it, and their machine code is the same with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mlx_autoresearch.machine import preamble
from mlx_autoresearch.machine.compiled import loops_folder
from mlx_autoresearch.machine.preamble import is_precompiled, precompile, share
from tests.support.compiled_loops import compile_loop, loops, needs_gcc

pytestmark = [
    needs_gcc,
    pytest.mark.skipif(preamble._headers() is None, reason="g++ is not GCC, or MLX came without its headers"),
]
GCH = Path("mlx", "backend", "cpu", "compiled_preamble.h.gch")


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder with the header in it."""
    folder = tmp_path_factory.mktemp("temporary")
    assert precompile(loops_folder(folder))
    return folder


def log_of(folder: Path) -> dict[str, str]:
    """Environment in which g++ tells, in a file log in `folder`, which headers it reads."""
    real = shutil.which("g++")
    folder.mkdir()
    (folder / "g++").write_text(f'#!/bin/sh\nexec {real} -H "$@" 2>>{folder}/log\n')
    (folder / "g++").chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def test_mlx_takes_it_and_makes_the_same_code(temporary: Path, tmp_path: Path) -> None:
    plain = compile_loop(tmp_path / "plain")
    done = compile_loop(temporary, **log_of(tmp_path / "bin"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == plain.stdout
    assert f"! {loops_folder(temporary) / GCH}" in (tmp_path / "bin" / "log").read_text()  # so GCC marks one it takes
    with_it, without = loops(temporary), loops(tmp_path / "plain")
    assert code(with_it[0]) == code(without[0])


def code(library: Path) -> list[str]:
    listing = subprocess.run(
        ["objdump", "-d", "-s", "-j", ".text", "-j", ".rodata", str(library)], capture_output=True, text=True
    )
    return listing.stdout.splitlines()[3:]  # without the file's name


def test_it_is_made_once_and_leaves_nothing_else(temporary: Path) -> None:
    header = loops_folder(temporary) / GCH
    before = header.stat()
    assert precompile(loops_folder(temporary))
    assert header.stat() == before
    assert os.listdir(header.parent) == [header.name]
    assert not list(loops_folder(temporary).glob(".*"))


def test_one_older_than_the_compiler_is_made_anew(temporary: Path, tmp_path: Path) -> None:
    header = tmp_path / "loops" / GCH
    header.parent.mkdir(parents=True)
    shutil.copyfile(loops_folder(temporary) / GCH, header)
    assert is_precompiled(tmp_path / "loops")
    os.utime(header, (1.0, 1.0))
    assert not is_precompiled(tmp_path / "loops")


def test_another_folder_shares_it_through_a_link(temporary: Path, tmp_path: Path) -> None:
    share(loops_folder(temporary), loops_folder(tmp_path))
    assert is_precompiled(loops_folder(tmp_path))
    done = compile_loop(tmp_path, **log_of(tmp_path / "bin"))
    assert done.returncode == 0, done.stderr
    assert f"! {loops_folder(tmp_path) / GCH}" in (tmp_path / "bin" / "log").read_text()


def test_given_up_it_leaves_nothing(tmp_path: Path) -> None:
    asked = threading.Event()

    def given_up() -> bool:
        asked.set()
        return True

    assert not precompile(tmp_path / "loops", given_up)
    assert asked.is_set()
    assert os.listdir(tmp_path / "loops") == []


def test_a_compiler_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "g++").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "g++").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert not precompile(tmp_path / "loops")
    assert os.listdir(tmp_path / "loops") == []


def test_a_header_that_cannot_be_read_again_is_not_left_to_mlx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.which("g++")
    (tmp_path / "g++").write_text(
        f"#!{sys.executable}\nimport subprocess, sys\n"
        f'code = subprocess.call(["{real}", *sys.argv[1:]])\n'
        "out = sys.argv[-1]\n"
        'if out.endswith(".gch"): open(out, "r+b").truncate(2_000_000)\n'
        "sys.exit(code)\n"
    )
    (tmp_path / "g++").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert not precompile(tmp_path / "loops")
    assert os.listdir(tmp_path / "loops") == []


@pytest.mark.parametrize("version", [None, "Apple clang version 17.0.0 (clang-1700.0.13.5)"])
def test_without_gcc_nothing_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    monkeypatch.setattr(preamble, "compiler_version", lambda: version)
    assert not precompile(tmp_path / "loops")
    assert not (tmp_path / "loops").exists()
