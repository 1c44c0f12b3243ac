"""What MLX compiled is kept in the user's cache, whole, and found again in another temporary folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from mlx_autoresearch.machine import compiled
from mlx_autoresearch.machine.compiled import copy_loops, copy_ptx, is_complete, kept, kept_files, loops_folder
from tests.support.compiled_loops import compile_loop, loops, needs_gcc


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A loop as MLX has compiled it."""
    temporary = tmp_path_factory.mktemp("temporary")
    assert compile_loop(temporary).returncode == 0
    (found,) = loops(temporary)
    return found


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLX_AUTORESEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class TestLoops:
    pytestmark = needs_gcc

    def test_a_loop_is_complete_only_with_its_last_byte(self, library: Path, tmp_path: Path) -> None:
        assert is_complete(library)
        whole = library.read_bytes()
        part = tmp_path / "part.so"
        for length in [*range(0, len(whole), 97), len(whole) - 1]:
            part.write_bytes(whole[:length])
            assert not is_complete(part), length

    @pytest.mark.parametrize("header", [bytes(64), b"\x7fELF\x02\x01" + bytes(58)])
    def test_a_file_whose_header_is_still_missing_is_not_complete(
        self, library: Path, tmp_path: Path, header: bytes
    ) -> None:
        """The GNU linker leaves room for the header and writes it after the code."""
        part = tmp_path / "part.so"
        part.write_bytes(header + library.read_bytes()[64:])
        assert not is_complete(part)

    def test_after_a_reboot_nothing_is_compiled_again(self, cache: Path, tmp_path: Path) -> None:
        first = compile_loop(tmp_path / "before", kept=True)
        assert first.returncode == 0, first.stderr
        assert [path.name for path in kept_files()] == [path.name for path in loops(tmp_path / "before")]
        no_compiler = tmp_path / "bin"
        no_compiler.mkdir()
        (no_compiler / "g++").write_text(
            '#!/bin/sh\ncase "$*" in *--version*) exec /usr/bin/env PATH="$REAL_PATH" g++ --version;; esac\nexit 1\n'
        )
        (no_compiler / "g++").chmod(0o755)
        path = {"PATH": f"{no_compiler}{os.pathsep}{os.environ['PATH']}", "REAL_PATH": os.environ["PATH"]}
        assert compile_loop(tmp_path / "alone", **path).returncode != 0, "the compiler should be out of order"
        again = compile_loop(tmp_path / "after", kept=True, **path)
        assert again.returncode == 0, again.stderr
        assert again.stdout == first.stdout

    def test_another_compiler_has_loops_of_its_own(
        self, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert compile_loop(tmp_path / "before", kept=True).returncode == 0
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "after"))
        monkeypatch.setattr(compiled, "compiler_version", lambda: "g++ (Another) 99.0")
        with kept():
            assert loops(tmp_path / "after") == []
        monkeypatch.setattr(compiled, "compiler_version", lambda: None)
        with kept():
            assert loops(tmp_path / "after") == []

    def test_a_loop_that_an_older_compiler_made_is_not_kept(self, cache: Path, tmp_path: Path) -> None:
        assert compile_loop(tmp_path).returncode == 0
        os.utime(loops(tmp_path)[0], (1.0, 1.0))
        assert compile_loop(tmp_path, kept=True).returncode == 0
        assert kept_files() == []

    def test_a_loop_that_is_there_is_not_replaced(
        self, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert compile_loop(tmp_path, kept=True).returncode == 0
        (found,) = loops(tmp_path)
        before = found.stat()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        with kept():
            assert found.stat() == before

    def test_those_not_used_for_longest_are_dropped(
        self, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert compile_loop(tmp_path, kept=True).returncode == 0
        (used,) = kept_files()
        for number in range(3):
            other = used.with_name(f"lib{number}.so")
            other.write_bytes(used.read_bytes())
            os.utime(other, (number, number))
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.setattr(compiled, "_MOST", 2)
        monkeypatch.setattr(compiled, "loaded", lambda folder: {used.name})
        with kept():
            pass
        assert sorted(path.name for path in kept_files()) == sorted(["lib2.so", used.name])

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_cache_that_cannot_be_written_is_no_failure(self, cache: Path, tmp_path: Path) -> None:
        cache.mkdir(mode=0o500)
        assert compile_loop(tmp_path, kept=True).returncode == 0

    def test_a_cache_that_is_a_file_is_no_failure(self, cache: Path, tmp_path: Path) -> None:
        cache.write_text("")
        done = compile_loop(tmp_path, kept=True)
        assert done.returncode == 0, done.stderr

    def test_a_copy_is_no_link(self, library: Path, tmp_path: Path) -> None:
        copy_loops(library.parent, tmp_path / "copies")
        copy = tmp_path / "copies" / library.name
        assert copy.read_bytes() == library.read_bytes()
        assert not copy.samefile(library)

    def test_there_need_be_no_loops(self, tmp_path: Path) -> None:
        copy_loops(tmp_path / "no", tmp_path / "copies")
        assert os.listdir(tmp_path / "copies") == []


class TestPtx:
    """The files are made up as MLX's sources write them; nothing here needs a GPU."""

    @pytest.fixture(autouse=True)
    def _cuda(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(compiled.device, "kernel_backend", lambda: "cuda")
        monkeypatch.setattr(os, "environ", os.environ.copy())
        os.environ.pop(compiled.PTX_FOLDER, None)

    def test_mlx_keeps_it_in_the_users_cache(self, cache: Path) -> None:
        with kept():
            folder = Path(os.environ["MLX_PTX_CACHE_DIR"])
            assert folder.is_dir() and folder.is_relative_to(cache)

    def test_the_users_own_folder_stays(self, tmp_path: Path) -> None:
        os.environ["MLX_PTX_CACHE_DIR"] = str(tmp_path / "mine")
        with kept():
            assert os.environ["MLX_PTX_CACHE_DIR"] == str(tmp_path / "mine")
        assert not (tmp_path / "mine").exists()

    def test_what_was_not_written_to_its_end_is_compiled_again(self) -> None:
        with kept():
            folder = Path(os.environ.pop("MLX_PTX_CACHE_DIR"))
        self.write(folder / "whole")
        self.write(folder / "long" / "name")
        self.write(folder / "no_source").with_suffix(".cu").unlink()
        self.write(folder / "no_names").with_suffix(".txt").write_text("")
        self.write(folder / "cut").write_bytes(b"\x7fELF\x02\x01" + bytes(58))
        with kept():
            assert sorted(path.stem for path in folder.rglob("*.ptx")) == ["name", "whole"]

    def test_those_not_used_for_longest_are_dropped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with kept():
            folder = Path(os.environ.pop("MLX_PTX_CACHE_DIR"))
        for number in range(3):
            os.utime(self.write(folder / str(number)), (number + 1, number + 1))
        monkeypatch.setattr(compiled, "_MOST_PTX", 1)
        with kept():
            assert sorted(path.name for path in folder.iterdir()) == ["2.cu", "2.ptx", "2.txt"]

    def test_copies_hold_what_mlx_reads(self, tmp_path: Path) -> None:
        with kept():
            self.write(Path(os.environ["MLX_PTX_CACHE_DIR"]) / "long" / "name")
        copy_ptx(tmp_path / "copies")
        found = sorted(path for path in (tmp_path / "copies").rglob("*") if path.is_file())
        assert [path.relative_to(tmp_path / "copies").as_posix() for path in found] == [
            "long/name.ptx",
            "long/name.txt",
        ]

    @staticmethod
    def write(name: Path) -> Path:
        name.parent.mkdir(exist_ok=True)
        for suffix in (".ptx", ".txt", ".cu"):
            name.with_suffix(suffix).write_text("// version 9\n")
        return name.with_suffix(".ptx")


def test_metal_needs_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled.device, "kernel_backend", lambda: "metal")
    with kept():
        pass
    assert not cache.exists()


def test_mlx_looks_below_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert loops_folder().is_relative_to(tmp_path)
    assert loops_folder(tmp_path / "a").is_relative_to(tmp_path / "a")
