"""What is published of a machine, and what is not."""

from __future__ import annotations

import getpass
import platform
import socket
from pathlib import Path

import pytest

from mlx_autoresearch.machine import system
from mlx_autoresearch.machine.specification import gpu_cores, without_names


@pytest.fixture
def ioreg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A Mac whose `ioreg` says what the test writes into a file."""
    program = tmp_path / "ioreg"
    program.write_text(f'#!/bin/sh\n/bin/cat "{tmp_path}/said"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(system, "is_macos", lambda: True)
    return tmp_path / "said"


def test_gpu_cores_of_a_mac(ioreg: Path) -> None:
    ioreg.write_text('+-o AGXAcceleratorG14X  <class AGXAcceleratorG14X>\n    {\n      "gpu-core-count" = 38\n    }\n')
    assert gpu_cores() == 38
    ioreg.write_text("")
    assert gpu_cores() is None
    ioreg.with_name("ioreg").unlink()
    assert gpu_cores() is None


def test_no_gpu_cores_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "is_macos", lambda: False)
    assert gpu_cores() is None


def test_a_kernels_own_name_is_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "macos_version", lambda: None)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    for release, published in (("6.18.44-zebrafish+", "Linux 6.18.44"), ("zebrafish", "Linux")):
        monkeypatch.setattr(platform, "release", lambda release=release: release)
        assert system.version() == published
    monkeypatch.setattr(system, "macos_version", lambda: (26, 2))
    assert system.version() == "macOS 26.2"


def test_paths_and_names_are_taken_out_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "zebra")
    monkeypatch.setattr(socket, "gethostname", lambda: "fish.example.org")
    monkeypatch.setattr(Path, "home", classmethod(lambda cls: cls("/Users/zebra")))
    for message, published in (
        ("cannot open '/Users/zebra/my.metal': no such file", "cannot open '<path>': no such file"),
        ("at ~/x and notes/diary.txt:3", "at <path> and <path>:3"),
        ("file=/tmp/zebra", "file=<path>"),
        ("zebra on fish.example.org, fish", "<name> on <name>, <name>"),
        ("zebras are no user", "zebras are no user"),
        ("its results are wrong", "its results are wrong"),
    ):
        assert without_names(message) == published
