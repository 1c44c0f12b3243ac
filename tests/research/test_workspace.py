from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.research.workspace import (
    CODE,
    EXPERIMENT,
    Workspace,
    repository_of,
    repository_of_search,
    require_code,
    uncommitted,
)
from tests.support.laboratory import git


@pytest.fixture
def workspace(repository: Path) -> Workspace:
    made = Workspace(repository, repository / "runs/test", "test")
    made.create("a: 1\n")
    return made


def test_a_commit_does_not_move_the_branch_and_keep_does(workspace: Workspace) -> None:
    start = workspace.best
    (workspace.path / EXPERIMENT).write_text("a: 2\n")
    commit = workspace.commit(1, "two", start)
    assert workspace.best == start
    workspace.keep(commit)
    assert workspace.best == commit
    assert workspace.read(commit, EXPERIMENT) == b"a: 2\n"
    change = workspace.change(start, commit)
    assert (change.status, change.insertions, change.deletions) == ({EXPERIMENT: "M"}, 1, 1)
    assert not workspace.has_less_code(start, commit, change)


@pytest.mark.parametrize(
    "damage",
    [
        lambda w: shutil.rmtree(w),
        lambda w: (w / ".git").unlink(),
        lambda w: ((w / ".git").unlink(), (w / ".git").mkdir()),
        lambda w: (w / ".git").write_text("gitdir: /nowhere\n"),
        lambda w: (shutil.rmtree(w), w.symlink_to("/tmp")),
        lambda w: (w / "README.md").unlink(),
        lambda w: (w / "__pycache__").mkdir(),
        lambda w: ((w / "sub").mkdir(), git(w / "sub", "init", "-q")),
        lambda w: (git(w, "checkout", "-q", "--detach"), git(w, "rm", "-rq", "src")),
        lambda w: git(w, "update-index", "--assume-unchanged", "README.md") + str((w / "README.md").write_text("x")),
        lambda w: git(w, "worktree", "prune"),
    ],
)  # fmt: skip
def test_reset_restores_a_worktree_whatever_was_done_to_it(workspace: Workspace, damage) -> None:
    damage(workspace.path)
    workspace.reset()
    assert git(workspace.path, "status", "--porcelain", "--ignored") == ""
    assert (workspace.path / "README.md").read_text() == "a checkout\n"
    assert git(workspace.path, "symbolic-ref", "HEAD").strip() == "refs/heads/research/test"
    assert git(workspace.repository, "status", "--porcelain") == ""


def test_a_home_elsewhere_belongs_to_the_checkout_we_are_in(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "elsewhere/test"
    Workspace(repository, home, "test").create("a: 1\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="run this in the clone that the search was started in"):
        repository_of_search(home, "test")
    monkeypatch.chdir(repository / "src")
    assert repository_of_search(home, "test") == repository
    with pytest.raises(UserError, match="run this in the clone that the search was started in"):
        repository_of_search(home.with_name("other"), "other")


def test_a_home_behind_a_link_is_found_again(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    workspace = Workspace(repository, tmp_path / "runs/test", "test")
    workspace.create("a: 1\n")
    workspace.reset()
    assert (workspace.path / EXPERIMENT).read_text() == "a: 1\n"


def test_stale_locks_of_a_git_that_was_killed_do_not_matter(workspace: Workspace) -> None:
    common = workspace.repository / ".git"
    for name in ("refs/heads/research/test.lock", "worktrees/worktree/index.lock", "worktrees/worktree/HEAD.lock"):
        (common / name).touch()
    workspace.reset()
    workspace.keep(workspace.commit(1, "again", workspace.best))


def test_a_lock_that_is_not_ours_is_named(workspace: Workspace) -> None:
    workspace.commit(1, "again", workspace.best)
    (workspace.repository / ".git/packed-refs.lock").touch()
    with pytest.raises(UserError, match=r"packed-refs\.lock"):
        workspace.forget(1)


def test_no_hook_is_run(workspace: Workspace) -> None:
    hook = workspace.repository / ".git/hooks/reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    workspace.keep(workspace.commit(1, "again", workspace.best))


def test_a_snapshot_holds_the_editable_code_of_a_commit_only(workspace: Workspace, tmp_path: Path) -> None:
    (workspace.path / "src/mlx_autoresearch/recipe/model.py").write_text("# changed later\n")
    workspace.snapshot(workspace.best, tmp_path / "code")
    assert "class GPT" in (tmp_path / "code/src/mlx_autoresearch/recipe/model.py").read_text()
    assert not (tmp_path / "code/README.md").exists()


def test_a_patch_that_does_not_apply_is_explained(workspace: Workspace) -> None:
    good = "--- a/README.md\n+++ b/README.md\n@@ -1 +1 @@\n-a checkout\n+a patch\n"
    assert "README.md" in (workspace.apply(good.replace("-a checkout", "-another")) or "")
    assert workspace.apply(good) is None
    assert (workspace.path / "README.md").read_text() == "a patch\n"


def test_where_there_is_no_repository_of_ours_it_says_what_to_do(tmp_path: Path, repository: Path) -> None:
    with pytest.raises(UserError, match="not in a git repository: run this in a clone"):
        repository_of(tmp_path)
    assert repository_of(repository / "src") == repository
    (repository / "src/mlx_autoresearch/recipe/model.py").write_text("# edited\n")
    assert uncommitted(repository) == ["src/mlx_autoresearch/recipe/model.py"]
    git(repository, "rm", "-rq", "--cached", "src")
    git(repository, "commit", "-qm", "gone")
    with pytest.raises(UserError, match="has no committed src/mlx_autoresearch"):
        require_code(repository)


def test_a_reset_that_is_killed_while_it_writes_can_be_repeated(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    best, write_text = workspace.best, Path.write_text
    for name in ("HEAD", ".git"):

        def killed(path: Path, text: str, *arguments: Any, name: str = name, **how: Any) -> int:
            if not path.name.endswith(name):
                return write_text(path, text, *arguments, **how)
            path.write_bytes(b"")
            raise KeyboardInterrupt

        monkeypatch.setattr(Path, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            workspace.reset()
        monkeypatch.undo()
        workspace.keep(best)
        assert git(workspace.path, "status", "--porcelain", "--ignored") == ""


def test_the_variables_of_another_repository_do_not_count(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As git sets them in a hook of another repository."""
    best, other = workspace.best, tmp_path / "other"
    git(tmp_path, "init", "--quiet", str(other))
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(other / ".git/objects"))
    assert workspace.best == best
    assert workspace.read(best, EXPERIMENT) == b"a: 1\n"


@pytest.mark.parametrize(
    "call",
    [
        lambda w: w.best,
        lambda w: w.read(w.best, EXPERIMENT),
        lambda w: w.apply("x"),
        lambda w: w.snapshot(w.best, w.path / "code"),
    ],
    ids=["resolve", "read", "apply", "snapshot"],
)
def test_the_terminals_interrupt_does_not_reach_git(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, call: Callable[[Workspace], object]
) -> None:
    groups = []
    original = subprocess.Popen

    def popen(*arguments: Any, **given: Any) -> Any:
        groups.append(given.get("process_group", -1))
        return original(*arguments, **given)

    monkeypatch.setattr(subprocess, "Popen", popen)
    call(workspace)
    assert set(groups) == {0}


def test_an_archive_that_git_cannot_make_is_one_line(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workspace, "_code_in", lambda self, commit: [CODE[0]])
    with pytest.raises(UserError, match="not a tree object"):
        workspace.snapshot("0" * 40, workspace.path / "code")


def test_what_finder_and_python_leave_behind_is_not_committed(workspace: Workspace) -> None:
    """It used to be taken for the agent's change."""
    parent = workspace.best
    for folder in (workspace.path, *(workspace.path / code for code in CODE)):
        for name in (".DS_Store", "._rope.metal", "__pycache__/x.cpython-312.pyc", "y.pyc"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"\0")
    commit = workspace.commit(1, "nothing", parent)
    assert workspace.change(parent, commit).status == {}


def test_less_code_is_told_from_fewer_lines(workspace: Workspace) -> None:
    """Settings are no code; a comment or a blank line that goes is no simplification."""
    file = workspace.path / "src/mlx_autoresearch/recipe/schedule.py"
    source = file.read_text()
    for number, (text, less) in enumerate(
        [
            (source.replace("\n\n\n", "\n"), False),
            ("\n".join(line for line in source.splitlines() if not line.lstrip().startswith("#")), False),
            (source + "\n\nx = 1\n", False),
            (source[: source.rindex("\ndef ")], True),
        ]
    ):
        workspace.reset()
        start = workspace.best
        file.write_text(text)
        (workspace.path / EXPERIMENT).write_text("")
        commit = workspace.commit(number + 1, "less?", start)
        assert workspace.has_less_code(start, commit, workspace.change(start, commit)) == less
