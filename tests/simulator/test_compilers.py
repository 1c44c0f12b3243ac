"""The best compiler is chosen; without one, one clear line says what to install; all compile the runtime silently."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.machine import system
from mlx_autoresearch.simulator import find_compiler
from mlx_autoresearch.simulator.build import RUNTIME, SHIM, build_runtime
from mlx_autoresearch.simulator.compilers import Compiler
from tests.support.compiler_paths import compiler_path, each_family, needs_compiler


def fake_compiler(folder: Path, name: str, banner: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{banner}'\n")
    path.chmod(0o755)


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}")
    monkeypatch.setattr(system, "processor", lambda: "x86_64")
    fake_compiler(tmp_path, "echo", "")
    monkeypatch.setattr(
        "mlx_autoresearch.simulator.compilers._identify", find_compiler.__globals__["_identify"].__wrapped__
    )
    return tmp_path


@pytest.mark.parametrize(
    ("banners", "chosen"),
    [
        ({"clang++": "Debian clang version 19.1.7", "g++": "g++ (Debian) 12.2.0"}, "clang++"),
        ({"clang++": "Debian clang version 14.0.6", "g++": "g++ (Debian) 12.2.0"}, "g++"),
        ({"clang++": "clang version 14.0.6", "clang++-18": "clang version 18.1.0"}, "clang++-18"),
        ({"clang++": "Apple clang version 16.0.0 (clang-1600.0.26)", "g++": "Apple clang version 16.0.0"}, "clang++"),
    ],
)
def test_prefers_clang_that_is_new_enough(banners: dict[str, str], chosen: str, only: Path) -> None:
    for name, banner in banners.items():
        fake_compiler(only, name, banner)
    assert find_compiler().path == chosen


@pytest.mark.parametrize("banners", [{}, {"g++": "g++ (Debian) 11.2.0"}, {"clang++": "nonsense"}])
def test_says_what_to_install(banners: dict[str, str], only: Path) -> None:
    for name, banner in banners.items():
        fake_compiler(only, name, banner)
    with pytest.raises(UserError, match="install clang 17 or newer") as raised:
        find_compiler()
    assert "\n" not in str(raised.value)


def test_on_arm64_gcc_12_lacks_half(only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "processor", lambda: "aarch64")
    fake_compiler(only, "g++", "g++ (Debian) 12.2.0")
    with pytest.raises(UserError, match=r"g\+\+ is gcc 12, too old; .* or g\+\+ 13 or newer"):
        find_compiler()
    fake_compiler(only, "g++-13", "g++-13 (Ubuntu) 13.3.0")
    assert find_compiler().path == "g++-13"


def test_gcc_lists_what_it_cannot_check_and_clang_nothing() -> None:
    for family in ("clang", "gcc"):
        if path := compiler_path(family):
            assert bool(find_compiler(path).unchecked) == (family == "gcc")


def test_ci_has_clang() -> None:
    if os.environ.get("CI", "false") not in ("false", "0", ""):
        assert compiler_path("clang"), "without clang++ 17 or newer, the strictest tests would be skipped"


@needs_compiler
def test_machines_of_other_processors_can_share_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLX_AUTORESEARCH_CACHE", str(tmp_path))
    ours = build_runtime(find_compiler())
    monkeypatch.setattr(system, "processor", lambda: "riscv64")
    assert build_runtime(find_compiler()) != ours


def test_where_the_runtime_does_not_compile_the_first_error_is_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLX_AUTORESEARCH_CACHE", str(tmp_path))
    broken = tmp_path / "broken++"
    said = r"In file included from kernel.cpp:1:\nfibers.h:8:2: error: no such header\nfibers.h:9:2: error: x"
    broken.write_text(f"#!/bin/sh\nprintf '{said}' >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(UserError, match=r"fibers\.h:8: no such header$"):
        build_runtime(Compiler(str(broken), "clang", 19, "broken"))


@pytest.mark.parametrize("portable", [False, True])
@each_family
def test_the_runtime_compiles_without_warnings(family: str, portable: bool) -> None:
    path = compiler_path(family)
    assert path
    flags = ["-std=c++17", "-O1", "-fsyntax-only", "-Wall", "-Wextra", "-Wshadow", "-Werror"]
    flags += ["-DSIM_USE_UCONTEXT"] if portable else []
    done = subprocess.run([path, *flags, str(RUNTIME / "runtime.cpp")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@each_family
def test_the_shim_compiles_without_warnings(family: str) -> None:
    path = compiler_path(family)
    assert path
    flags = ["-std=gnu++17", "-fsyntax-only", "-x", "c++", f"-I{SHIM}", "-Wall", "-Wextra", "-Werror"]
    flags += ["-cl-single-precision-constant"] if family == "clang" else ["-fsingle-precision-constant"]
    text = '#include "metal_sim.h"\n'
    done = subprocess.run([path, *flags, "-"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("banner", "words"),
    [
        (None, "no C++ compiler found: install the Command Line Tools (`xcode-select --install`)"),
        ("Apple clang version 14.0.3 (clang-1403.0.22.14.1)", "clang++ is Apple clang 14, too old; update"),
        ("Apple clang version 15.0.0 (clang-1500.3.9.4)", "clang++ is Apple clang 15, too old; update"),
        ("Apple clang version 16.0.0 (clang-1600.0.26.6)", None),
        ("Apple clang version 17.0.0 (clang-1700.0.13.5)", None),
        ("Apple clang version 21.0.0 (clang-2100.1.1.101)", None),
    ],
)
def test_on_a_mac_old_tools_are_updated_and_missing_ones_installed(
    mac: None, only: Path, banner: str | None, words: str | None
) -> None:
    if banner:
        fake_compiler(only, "clang++", banner)
    if words is None:
        assert find_compiler().is_clang
        return
    with pytest.raises(UserError) as raised:
        find_compiler()
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert ("xcode-select --install" in str(raised.value)) == (banner is None)


def test_on_a_mac_without_tools_nothing_is_asked_for_its_version(mac: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """/usr/bin/clang++ and its like would open a window that offers to install them."""
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(system, "_has_command_line_tools", lambda: False)
    assert system.program("clang++") is None
    monkeypatch.setattr(system, "name", lambda: "linux")
    assert system.program("clang++") == "/usr/bin/clang++"
