"""Whatever git's settings, variables and hooks say, and wherever the checkout is: commits hold what they should."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.machine.git import environment
from mlx_autoresearch.research.editable import EXPERIMENT
from mlx_autoresearch.research.handover import Handover
from mlx_autoresearch.research.workspace import Workspace
from tests.support.laboratory import git

MODEL, SCHEDULE = (f"src/mlx_autoresearch/recipe/{name}.py" for name in ("model", "schedule"))


@pytest.fixture
def workspace(repository: Path) -> Workspace:
    made = Workspace(repository, repository / "runs/test", "test")
    made.create("a: 1\n")
    return made


def test_no_hook_is_run(workspace: Workspace) -> None:
    hook = workspace.repository / ".git/hooks/reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    workspace.keep(workspace.commit(1, "again", workspace.best, {}))


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


SETTINGS = """
[core]
    autocrlf = true
    safecrlf = true
    attributesFile = {folder}/attributes
    excludesFile = {folder}/excludes
    hooksPath = {folder}/hooks
    fsmonitor = {folder}/run
    splitIndex = true
[filter "f"]
    clean = {folder}/run
    smudge = {folder}/run
    process = {folder}/run
    required = true
[diff]
    external = {folder}/run
    noprefix = true
[diff "d"]
    textconv = {folder}/run
    command = {folder}/run
[commit]
    gpgSign = true
    template = {folder}/none
[gpg]
    program = {folder}/run
[log]
    showSignature = true
[i18n]
    commitEncoding = ISO-8859-1
[init]
    templateDir = {folder}/template
    defaultBranch = mine
[status]
    showUntrackedFiles = no
"""


@pytest.mark.parametrize("where", ["the user's", "the repository's"])
def test_nothing_of_gits_settings_decides_what_a_commit_holds_or_is_run(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    folder = tmp_path / "settings"
    (folder / "template/hooks").mkdir(parents=True)
    (folder / "hooks").mkdir()
    (folder / "attributes").write_text("* filter=f diff=d text eol=crlf ident\n")
    (folder / "excludes").write_text("*\n")
    programs = [folder / "run", *(folder / "hooks" / name for name in ("reference-transaction", "post-index-change"))]
    for program in [*programs, folder / "template/hooks/pre-commit"]:
        program.write_text(f"#!/bin/sh\necho {program} >> {tmp_path}/ran\ncat\n")
        program.chmod(0o755)
    (repository / ".gitattributes").write_text("*.py export-subst\n*.metal export-ignore\n")
    (repository / MODEL).write_bytes(b"# $Format:%H$ $Id$\nx = 1\n")
    git(repository, "add", "--all")
    git(repository, "commit", "-qm", "attributes")
    if where == "the user's":
        (tmp_path / ".gitconfig").write_text(SETTINGS.format(folder=folder))
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    else:
        with (repository / ".git/config").open("a") as config:
            config.write(SETTINGS.format(folder=folder))
        (repository / ".git/info/attributes").write_text("* filter=f diff=d text eol=crlf ident\n")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", str(folder / "run"))
    workspace = Workspace(repository, repository / "runs/test", "test")
    workspace.require_new()
    workspace.create("a: 1\n")
    assert workspace.is_at_start()
    start = workspace.best
    with workspace.laid_out(start):
        assert (workspace.path / MODEL).read_bytes() == b"# $Format:%H$ $Id$\nx = 1\n"
        assert not (workspace.path / ".git/hooks").exists()
        (workspace.path / SCHEDULE).write_bytes(b"y = 1\r\n")
        (workspace.path / "custom_kernels/new.metal").write_bytes(b"new\n")
        files = workspace.handover(start).files
    assert files == {SCHEDULE: b"y = 1\r\n", "custom_kernels/new.metal": b"new\n"}
    commit = workspace.commit(1, "na\u00efve", start, files)
    assert {path: workspace.read(commit, path) for path in files} == files
    assert workspace.change(start, commit).status == {SCHEDULE: "M", "custom_kernels/new.metal": "A"}
    assert f"+++ b/{SCHEDULE}" in workspace.diff(start, commit)
    assert workspace.patched(commit, "--- a/README.md\n+++ b/README.md\n@@ -1 +1 @@\n-a checkout\n+a\n")
    workspace.snapshot(commit, tmp_path / "code")
    assert (tmp_path / "code" / SCHEDULE).read_bytes() == b"y = 1\r\n"
    assert (tmp_path / "code" / MODEL).read_bytes() == b"# $Format:%H$ $Id$\nx = 1\n"
    assert (tmp_path / "code/custom_kernels/new.metal").read_bytes() == b"new\n"
    workspace.keep(commit)
    workspace.forget(1)
    assert not list((repository / ".git").glob("sharedindex*"))
    said = subprocess.run(
        ["git", "cat-file", "commit", commit], cwd=repository, capture_output=True, check=True, env=environment()
    ).stdout
    assert said.endswith("\n\nna\u00efve".encode()) or said.endswith("\n\nna\u00efve\n".encode())
    assert b"gpgsig" not in said and b"encoding" not in said
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()


def test_a_file_that_the_database_lacks_is_not_fetched(repository: Path, tmp_path: Path) -> None:
    """Of a partial clone: its remote may be any program."""
    run = tmp_path / "run"
    run.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    run.chmod(0o755)
    for key, value in {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.url": f"ext::{run}",
        "remote.origin.promisor": "true",
        "protocol.ext.allow": "always",
    }.items():
        git(repository, "config", key, value)
    workspace = Workspace(repository, tmp_path / "test", "test")
    with pytest.raises(UserError):
        workspace.read("f" * 40, EXPERIMENT)
    assert not (tmp_path / "ran").exists()


def test_a_checkout_may_be_a_worktree_itself(repository: Path, tmp_path: Path) -> None:
    """As those of submodules, it may also have its place in git's settings."""
    linked = tmp_path / "linked"
    git(repository, "worktree", "add", "-q", "-b", "mine", str(linked))
    git(linked, "commit", "-q", "--allow-empty", "-m", "mine")
    git(repository, "config", "core.worktree", str(repository))
    workspace = Workspace(linked, tmp_path / "runs/test", "test")
    workspace.create("a: 1\n")
    start = workspace.best
    assert git(repository, "rev-parse", f"{start}^") == git(linked, "rev-parse", "mine")
    with workspace.laid_out(start):
        assert workspace.handover(start) == Handover({}, [])
    workspace.snapshot(workspace.head, tmp_path / "code")
    commit = workspace.commit(1, "gone", start, {"README.md": None})
    assert workspace.change(start, commit).status == {"README.md": "D"}
    assert git(repository, "status", "--porcelain") == git(linked, "status", "--porcelain") == ""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file away")
def test_a_repository_of_another_user_is_taken_where_the_users_settings_say_so(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (repository, repository / ".git", *(repository / ".git").rglob("*")):
        os.chown(path, 54321, 54321)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError):
        Workspace(repository, tmp_path / "test", "test")
    (tmp_path / ".gitconfig").write_text(f"[safe]\n    directory = {repository}\n")
    workspace = Workspace(repository, tmp_path / "test", "test")
    workspace.create("a: 1\n")
    with workspace.laid_out(workspace.best):
        assert workspace.handover(workspace.best) == Handover({}, [])
