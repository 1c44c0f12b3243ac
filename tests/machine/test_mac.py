"""What doctor warns of on a Mac."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.machine import blas, device, mac, system


def on(monkeypatch: pytest.MonkeyPatch, macos: str, wheel: int | None) -> None:
    monkeypatch.setenv("SIMULATED_MACOS", macos)
    system.macos_version.cache_clear()
    text = None if wheel is None else f"Wheel-Version: 1.0\nTag: py3-none-macosx_{wheel}_0_arm64\n"
    monkeypatch.setattr(mac, "distribution", lambda _: SimpleNamespace(read_text=lambda _: text))


@pytest.mark.usefixtures("mac")
@pytest.mark.parametrize(
    ("chip", "macos", "wheel", "said"),
    [
        ("Apple M1", "13.6", 14, "macOS 13.6 is too old"),
        ("Apple M1", "14.0", 14, None),
        ("Apple M2", "15.5", 15, None),
        ("Apple M4 Max", "26.4", 15, None),
        ("Apple M5", "26.2", 26, None),
        ("Apple M5", "26.2", 15, "does not use this chip's neural accelerators"),
        ("Apple M5 Pro", "27.0", 14, "does not use this chip's neural accelerators"),
        ("Apple M5", "26.0", 26, "update to macOS 26.2"),
        ("Apple M3", "26.1", 26, "update to macOS 26.2"),
        ("Apple M5", "26.2", None, None),
    ],
)
def test_each_problem_is_one_line_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, chip: str, macos: str, wheel: int | None, said: str | None
) -> None:
    on(monkeypatch, macos, wheel)
    found = list(mac.warnings(chip))
    assert [said in line and "\n" not in line for line in found if said] == ([True] if said else [])
    assert bool(found) == bool(said)


def test_elsewhere_there_is_nothing_to_say() -> None:
    if not system.is_macos():
        assert list(mac.warnings("NVIDIA H100")) == []


def test_without_a_metal_wheel_nothing_is_known_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(mac, "distribution", missing)
    assert mac.wheel_macos() is None


@pytest.mark.usefixtures("mac")
def test_a_hidden_link_to_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, "15.5", 15)
    for name in ("a.pth", "_editable.pth", "other.txt"):
        (tmp_path / name).touch()
    hidden = {str(tmp_path / "_editable.pth"), str(tmp_path / "other.txt")}
    monkeypatch.setattr(mac, "_flags", lambda path: 0x8000 if str(path) in hidden else 0)
    monkeypatch.setattr(mac.sysconfig, "get_path", lambda _: str(tmp_path))
    (line,) = mac.warnings("Apple M2")
    assert "_editable.pth" in line and "chflags -R nohidden .venv" in line


@pytest.mark.usefixtures("mac")
def test_no_compiler_is_asked_for_its_version_on_a_mac_without_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "program", lambda _: None)
    monkeypatch.setattr(device.subprocess, "run", lambda *_, **__: pytest.fail("it opens a window"))
    device.cpu_compiler_available.cache_clear()
    assert not device.cpu_compiler_available()
    device.cpu_compiler_available.cache_clear()


@pytest.mark.usefixtures("mac")
def test_an_interpreter_for_intel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    load = builtins.__import__

    def broken(name: str, *rest: object) -> object:
        if name == "mlx.core":
            raise ImportError("no suitable image")
        return load(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", broken)
    monkeypatch.setattr(system, "processor", lambda: "x86_64")
    with pytest.raises(UserError, match="a Python for Apple silicon, and this one is for x86_64"):
        blas.require_mlx()
