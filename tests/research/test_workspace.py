from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.research import workspace as module
from mlx_autoresearch.research.editable import EXPERIMENT
from mlx_autoresearch.research.handover import Handover, Refused
from mlx_autoresearch.research.workspace import (
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


MODEL, SCHEDULE = (f"src/mlx_autoresearch/recipe/{name}.py" for name in ("model", "schedule"))


def test_a_commit_does_not_move_the_branch_and_keep_does(workspace: Workspace) -> None:
    start = workspace.best
    commit = workspace.commit(1, "two", start, {EXPERIMENT: b"a: 2\n"})
    assert workspace.best == start
    workspace.keep(commit)
    assert workspace.best == commit
    assert workspace.read(commit, EXPERIMENT) == b"a: 2\n"
    change = workspace.change(start, commit)
    assert (change.status, change.insertions, change.deletions) == ({EXPERIMENT: "M"}, 1, 1)
    assert not workspace.has_less_code(start, commit, change)
    assert git(workspace.repository, "log", "-1", "--format=%P %an %s", commit) == f"{start} mlx-autoresearch two\n"
    assert git(workspace.repository, "status", "--porcelain") == ""


def test_a_commit_has_new_files_lacks_deleted_ones_and_keeps_modes(repository: Path) -> None:
    (repository / MODEL).chmod(0o755)
    git(repository, "commit", "-qam", "executable")
    workspace = Workspace(repository, repository / "runs/test", "test")
    workspace.create("a: 1\n")
    start = workspace.best
    files = {MODEL: b"x = 1\r\n", SCHEDULE: None, f"{SCHEDULE}/a.py": b"", "custom_kernels/a": b"\0", "README.md": b""}
    commit = workspace.commit(1, "many", start, files)
    assert workspace.change(start, commit).status == {
        MODEL: "M", SCHEDULE: "D", f"{SCHEDULE}/a.py": "A", "custom_kernels/a": "A", "README.md": "M",
    }  # fmt: skip
    assert {path: workspace.read(commit, path) for path in files} == files
    listed = git(repository, "ls-tree", commit, "--", MODEL, "custom_kernels/a", "README.md").splitlines()
    assert sorted(line.split()[0] for line in listed) == ["100644", "100644", "100755"]
    assert workspace.read(commit, "src") is None


def test_an_agents_folder_holds_the_commits_files_and_a_repository_that_shares_nothing(repository: Path) -> None:
    (repository / "link").symlink_to("README.md")
    (repository / MODEL).chmod(0o755)
    git(repository, "add", "--all")
    git(repository, "commit", "-qm", "a link")
    workspace = Workspace(repository, repository / "runs/test", "test")
    workspace.create("a: 1\n")
    with workspace.laid_out(workspace.best):
        assert (workspace.path / EXPERIMENT).read_text() == "a: 1\n"
        assert (workspace.path / "link").readlink() == Path("README.md")
        assert (workspace.path / MODEL).stat().st_mode & 0o111 == 0o111
        assert git(workspace.path, "status", "--porcelain", "--ignored") == ""
        assert git(workspace.path, "log", "--format=%s") == "the best so far\n"
        git(workspace.path, "fsck", "--full")
        assert not (workspace.path / ".git/objects/info/alternates").exists()
        assert not (workspace.path / ".git/hooks").exists()
        assert git(workspace.path, "remote") == ""
        git(workspace.path, "rm", "-rq", "src")
        assert workspace.handover(workspace.best).files.keys() > {MODEL, SCHEDULE}
    assert not workspace.path.exists()
    assert git(repository, "status", "--porcelain") == ""
    assert len(git(repository, "worktree", "list").splitlines()) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda w: shutil.rmtree(w),
        lambda w: shutil.rmtree(w / ".git"),
        lambda w: (shutil.rmtree(w), w.symlink_to("/tmp")),
        lambda w: (shutil.rmtree(w), w.touch()),
        lambda w: (w / "README.md").unlink(),
        lambda w: ((w / "sub").mkdir(), git(w / "sub", "init", "-q")),
        lambda w: (w / "src").chmod(0),
    ],
)  # fmt: skip
def test_the_next_agent_gets_a_clean_folder_whatever_the_last_one_did(workspace: Workspace, damage: Any) -> None:
    with workspace.laid_out(workspace.best):
        damage(workspace.path)
    with workspace.laid_out(workspace.best):
        assert git(workspace.path, "status", "--porcelain", "--ignored") == ""
        assert workspace.handover(workspace.best) == Handover({}, [])
    assert git(workspace.repository, "status", "--porcelain") == ""


def test_a_worktree_of_an_earlier_version_is_forgotten_and_others_are_not(workspace: Workspace, tmp_path: Path) -> None:
    """Where the clone was moved, git knows it by its old place."""
    git(workspace.repository, "worktree", "add", "-q", str(workspace.path), "research/test")
    git(workspace.repository, "worktree", "add", "-q", str(tmp_path / "mine"), "main", "--force")
    git(workspace.repository, "worktree", "add", "-q", str(tmp_path / "also"), "research/test", "--force")
    shutil.rmtree(tmp_path / "mine")  # as on a disk that is not there now
    workspace.repository.rename(tmp_path / "moved")
    moved = Workspace(tmp_path / "moved", tmp_path / "moved/runs/test", "test")
    moved.clear()
    assert not moved.path.exists()
    listed = git(moved.repository, "worktree", "list", "--porcelain")
    assert {Path(line).name for line in listed.splitlines() if line.startswith("worktree ")} == {
        "moved",
        "mine",
        "also",
    }


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
    with workspace.laid_out(workspace.best):
        assert (workspace.path / EXPERIMENT).read_text() == "a: 1\n"


def test_stale_locks_of_a_git_that_was_killed_do_not_matter(workspace: Workspace) -> None:
    (workspace.repository / ".git/refs/heads/research/test.lock").touch()
    workspace.unlock()
    index = workspace.repository / "runs/test/.index"
    index.mkdir(parents=True)
    (index / "index.lock").touch()
    workspace.keep(workspace.commit(1, "again", workspace.best, {}))
    assert not index.exists()


def test_a_lock_that_is_not_ours_is_named(workspace: Workspace) -> None:
    workspace.commit(1, "again", workspace.best, {})
    (workspace.repository / ".git/packed-refs.lock").touch()
    with pytest.raises(UserError, match=r"packed-refs\.lock"):
        workspace.forget(1)


def test_a_snapshot_holds_the_editable_code_of_a_commit_only(workspace: Workspace, tmp_path: Path) -> None:
    workspace.snapshot(workspace.best, tmp_path / "code")
    assert "class GPT" in (tmp_path / "code" / MODEL).read_text()
    assert not (tmp_path / "code/README.md").exists()


def test_a_link_among_the_code_is_not_written(repository: Path, tmp_path: Path) -> None:
    (repository / "custom_kernels/a.metal").symlink_to("/etc/passwd")
    git(repository, "add", "--all")
    git(repository, "commit", "-qm", "a link")
    with pytest.raises(UserError, match=r"custom_kernels/a\.metal is not a regular file at commit"):
        Workspace(repository, tmp_path, "test").snapshot("HEAD", tmp_path / "code")
    assert not (tmp_path / "code").exists()


def test_a_patch_is_applied_to_the_commit_or_explained(workspace: Workspace) -> None:
    good = "--- a/README.md\n+++ b/README.md\n@@ -1 +1 @@\n-a checkout\n+a patch\n"
    link = "diff --git a/x b/x\nnew file mode 120000\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+/etc/passwd\n"
    assert workspace.patched(workspace.best, good) == {"README.md": b"a patch\n"}
    gone = good.replace("+++ b/README.md", "+++ /dev/null").replace("+1 @@", "+0,0 @@").replace("+a patch\n", "")
    assert workspace.patched(workspace.best, gone) == {"README.md": None}
    for patch, said in [
        (good.replace("-a checkout", "-another"), r"the patch does not apply: .*README\.md"),
        (link, "x is not a regular file"),
        (good.replace("README.md", "../README.md"), "the patch does not apply"),
        (link.replace("b/x", "b/.git/x").replace("a/x", "a/.git/x"), "the patch does not apply"),
        ("x", "the patch does not apply"),
    ]:
        with pytest.raises(Refused, match=said):
            workspace.patched(workspace.best, patch)
    assert git(workspace.repository, "status", "--porcelain") == ""


def test_a_long_diff_is_kept_in_part(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    start = workspace.best
    commit = workspace.commit(1, "long", start, {MODEL: b"x = 1\n" * 10_000})
    assert len(workspace.diff(start, commit)) > 60_000
    monkeypatch.setattr(module, "MOST_DIFF", 1_000)
    diff = workspace.diff(start, commit)
    assert len(diff) < 1_100
    assert diff.endswith("[... the diff is longer than 1,000 bytes]\n")
    with pytest.raises(UserError, match="exit code"):
        workspace.diff(start, "f" * 40)


def test_where_there_is_no_repository_of_ours_it_says_what_to_do(tmp_path: Path, repository: Path) -> None:
    with pytest.raises(UserError, match="not in a git repository: run this in a clone"):
        repository_of(tmp_path)
    assert repository_of(repository / "src") == repository
    (repository / "src/mlx_autoresearch/recipe/model.py").write_text("# edited\n")
    (repository / "custom_kernels/new.metal").touch()
    git(repository, "config", "status.showUntrackedFiles", "no")
    assert sorted(uncommitted(repository)) == ["custom_kernels/new.metal", "src/mlx_autoresearch/recipe/model.py"]
    git(repository, "rm", "-rq", "--cached", "src")
    git(repository, "commit", "-qm", "gone")
    with pytest.raises(UserError, match="has no committed src/mlx_autoresearch"):
        require_code(repository)


@pytest.mark.parametrize(
    "call",
    [
        lambda w: w.best,
        lambda w: w.read(w.best, EXPERIMENT),
        lambda w: w.patched(w.best, "--- a/README.md\n+++ b/README.md\n@@ -1 +1 @@\n-a checkout\n+a\n"),
        lambda w: w.diff(w.best, w.best),
        lambda w: w.snapshot(w.best, w.path / "code"),
    ],
    ids=["resolve", "read", "patch", "diff", "snapshot"],
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


def test_a_commit_that_is_gone_is_one_line(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"[nN]ot a (tree|valid) object") as error:
        workspace.snapshot("0" * 40, tmp_path / "code")
    assert "\n" not in str(error.value)


def test_less_code_is_told_from_fewer_lines(workspace: Workspace) -> None:
    """Settings are no code; a comment or a blank line that goes is no simplification."""
    start = workspace.best
    source = (workspace.read(start, SCHEDULE) or b"").decode()
    for number, (text, less) in enumerate(
        [
            (source.replace("\n\n\n", "\n"), False),
            ("\n".join(line for line in source.splitlines() if not line.lstrip().startswith("#")), False),
            (source + "\n\nx = 1\n", False),
            (source[: source.rindex("\ndef ")], True),
        ]
    ):
        commit = workspace.commit(number + 1, "less?", start, {SCHEDULE: text.encode(), EXPERIMENT: b""})
        assert workspace.has_less_code(start, commit, workspace.change(start, commit)) == less
