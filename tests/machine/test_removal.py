"""Whatever was left can be deleted."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mlx_autoresearch.machine.removal import remove


def test_a_folder_of_any_depth_and_length_is_deleted(tmp_path: Path) -> None:
    """Python's own shutil.rmtree ends in a RecursionError, and no path to the last folder is short enough."""
    top = tmp_path / "top"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("x" * 200, dir_fd=here)
        below = os.open("x" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    remove(top)
    assert os.listdir(tmp_path) == []


def test_what_is_not_a_file_and_what_is_protected_is_deleted(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "dear").touch()
    top = tmp_path / "top"
    (top / "a" / "b").mkdir(parents=True)
    os.mkfifo(top / "a" / "fifo")
    (top / "a" / "link").symlink_to(victim)
    (top / "a" / "itself").symlink_to("itself")
    (top / os.fsdecode(b"\xff")).touch()
    for folder in (top / "a" / "b", top / "a", top):
        folder.chmod(0)
    remove(top)
    assert os.listdir(tmp_path) == ["victim"] and (victim / "dear").exists()
    (tmp_path / "link").symlink_to(victim)
    remove(tmp_path / "link")
    remove(tmp_path / "nothing")
    remove(victim / "dear" / "below")
    assert (victim / "dear").exists() and os.listdir(tmp_path) == ["victim"]


def test_a_file_that_the_superuser_may_not_change_is_deleted(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "a").mkdir(parents=True)
    (top / "a" / "file").touch()
    try:
        done = subprocess.run(
            ["chattr", "+i", str(top / "a" / "file"), str(top / "a")], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("no chattr here")
    if done.returncode:
        pytest.skip("chattr takes root, and a file system that has its flags")
    remove(top)
    assert os.listdir(tmp_path) == []
