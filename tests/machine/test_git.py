"""A git that fails is an error, never an empty answer."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.machine.git import git


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(["init", "--quiet", "--initial-branch=main"], tmp_path)
    (tmp_path / "file").write_text("text")
    git(["add", "--all"], tmp_path)
    git(["commit", "--quiet", "-m", "first"], tmp_path)
    return tmp_path


def fake_git(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str, mode: int = 0o755) -> None:
    (folder / "git").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "git").chmod(mode)
    monkeypatch.setenv("PATH", str(folder))


def test_what_git_prints(checkout: Path) -> None:
    assert git(["status", "--porcelain"], checkout) == ""
    (checkout / "new").touch()
    assert git(["status", "--porcelain"], checkout) == "?? new\n"


def test_names_that_are_not_utf8_come_back_as_they_are(checkout: Path) -> None:
    (checkout / "\udce9").touch()
    assert git(["ls-files", "--others", "-z"], checkout) == "\udce9\0"


@pytest.mark.parametrize("script", ["exit 1", "echo lost >&2; exit 128", "kill -9 $$"])
def test_a_git_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    fake_git(tmp_path, monkeypatch, script)
    with pytest.raises(UserError, match="status") as error:
        git(["status", "--porcelain"], tmp_path)
    assert "\n" not in str(error.value)
    assert ("lost" in str(error.value)) == ("lost" in script)


def test_a_folder_that_is_no_checkout_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UserError, match="not a git repository"):
        git(["status", "--porcelain"], tmp_path)
    with pytest.raises(UserError, match="no/such"):
        git(["status"], tmp_path / "no/such")


def test_no_git_is_one_line_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="git is not installed, or not on PATH"):
        git(["status"], tmp_path)
    (tmp_path / "git").mkdir()
    with pytest.raises(UserError, match="git cannot be run: Permission denied"):
        git(["status"], tmp_path)


def test_the_users_settings_and_hooks_do_not_count(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = checkout / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    monitor = ["git", "-C", str(checkout), "config", "core.fsmonitor", f"echo ran > {checkout / 'ran'}; false"]
    subprocess.run(monitor, check=True)
    monkeypatch.setenv("GIT_DIR", "/no/such")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "somebody else")
    (checkout / "file").write_text("changed")
    git(["commit", "--quiet", "--all", "-m", "second"], checkout)
    log = ["git", "--git-dir", str(checkout / ".git"), "log", "-1", "--format=%an"]
    assert git(["status", "--porcelain"], checkout) == ""
    assert subprocess.run(log, capture_output=True, text=True, check=True).stdout == "mlx-autoresearch\n"
