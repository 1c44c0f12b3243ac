from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import mlx_autoresearch
from mlx_autoresearch.machine import versions
from mlx_autoresearch.machine.git import git


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout in which this package seems to lie."""
    folder = tmp_path / "src/mlx_autoresearch"
    (folder / "machine").mkdir(parents=True)
    shutil.copyfile(versions.__file__, folder / "machine/versions.py")
    monkeypatch.setattr(versions, "__file__", str(folder / "machine/versions.py"))
    return folder


def commit(package: Path) -> str:
    top = package.parents[1]
    git(["init", "--quiet"], top)
    git(["add", "--all"], top)
    git(["commit", "--quiet", "-m", "all"], top)
    return git(["rev-parse", "HEAD"], top).strip()


def test_the_commit_and_whether_the_package_differs_from_it(package: Path) -> None:
    head = commit(package)
    assert versions.git_commit() == head
    (package.parents[1] / "README.md").write_text("not part of the package")
    assert versions.git_commit() == head
    (package / "new.py").touch()
    assert versions.git_commit() == f"{head}+changes"


def test_a_package_that_git_does_not_track_has_no_commit(package: Path) -> None:
    assert versions.git_commit() is None
    (package.parents[1] / ".gitignore").write_text("src/\n")
    commit(package)
    assert versions.git_commit() is None


def test_without_git_there_is_no_commit(package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commit(package)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert versions.git_commit() is None


def test_versions_of_what_decides_a_result() -> None:
    found = versions.package_versions()
    assert found["mlx_autoresearch"] == mlx_autoresearch.__version__
    assert {"mlx", "numpy"} <= found.keys()
    assert versions.installed("no-such-package") is None
    assert re.fullmatch(r"3\.\d+\.\d+\S*", versions.python_version())
