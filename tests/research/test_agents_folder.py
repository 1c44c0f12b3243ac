"""Agents that leave something else than files: nothing of theirs is run, no night ends, the next one starts clean."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.research.home import Search
from mlx_autoresearch.research.workspace import Workspace
from tests.support.laboratory import free_trial, git, make_search, run_programs, run_search

START = """
import os, shutil, subprocess, sys
from pathlib import Path
def git(*arguments, at="."):
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    return subprocess.run(["git", "-C", at, *who, *arguments], check=True, capture_output=True, text=True).stdout
assert not git("status", "--porcelain", "--ignored")
"""
CONFIG = "research/experiment.yaml"
GOOD = f"""
text = Path({CONFIG!r}).read_text()
Path({CONFIG!r}).write_text(text.replace("matrix_lr: 0.04", "matrix_lr: 0.001"))
"""
USUAL = """
subprocess.run([sys.executable, "-m", "compileall", "-q", "src/mlx_autoresearch/recipe"], check=True)
assert list(Path("src/mlx_autoresearch/recipe/__pycache__").iterdir())
assert "matrix_lr: 0.001" in git("diff")
git("commit", "-qam", "mine")
git("log")
"""
TRAP = """
def trap(folder):
    "Every file of the repository has a filter; hooks and a file system monitor, too: all run {run}."
    git("config", "filter.f.clean", {run!r}, at=folder)
    git("config", "filter.f.smudge", {run!r}, at=folder)
    git("config", "filter.f.required", "true", at=folder)
    git("config", "core.fsmonitor", {run!r}, at=folder)
    git("config", "core.hooksPath", {hooks!r}, at=folder)
    git("config", "diff.external", {run!r}, at=folder)
    Path(folder, ".gitattributes").write_text("* filter=f diff=f\\n")
"""


@pytest.fixture
def search(repository: Path, tiny: Config) -> Search:
    config = make_search(tiny, seeds={"baseline": 2, "best": 1, "most": 2})
    return Search.start(config, repository / "runs", repository, run_trial=free_trial)


def test_what_a_repository_of_an_agent_names_is_never_run(search: Search, repository: Path, tmp_path: Path) -> None:
    """The search's own `git add` used to run the filter of a nested repository, as the user and without confinement."""
    run, ran = tmp_path / "run", tmp_path / "ran"
    (tmp_path / "hooks").mkdir()
    for program in (run, tmp_path / "hooks/reference-transaction", tmp_path / "hooks/post-checkout"):
        program.write_text(f"#!/bin/sh\necho {program} >> {ran}\ncat\n")
        program.chmod(0o755)
    trap = START + TRAP.format(run=str(run), hooks=str(tmp_path / "hooks"))
    nested = """
git("init", "-q", "custom_kernels/nested")
Path("custom_kernels/nested/a.metal").write_text("// one\\n")
git("add", "--all", at="custom_kernels/nested")
git("commit", "-qm", "one", at="custom_kernels/nested")
trap("custom_kernels/nested")
Path("custom_kernels/nested/a.metal").write_text("// two\\n")
"""
    elsewhere = """
shutil.move("custom_kernels/nested/.git", "custom_kernels/repository")
Path("custom_kernels/nested/.git").write_text("gitdir: " + os.path.abspath("custom_kernels/repository"))
"""
    programs = [
        trap + nested,
        trap + nested + elsewhere,
        trap + "trap('.')\nPath('custom_kernels/a.metal').write_text('// one\\n')",
        trap + "git('init', '-q', 'src')\ntrap('src')\nPath('custom_kernels/a.metal').write_text('// one\\n')",
        trap + "git('init', '-q', 'src/mlx_autoresearch/recipe')",
    ]
    first, second, third, fourth, fifth, good = run_programs(search, *programs, START + GOOD)
    assert not ran.exists(), ran.read_text()
    assert first.files == ["custom_kernels/nested/a.metal"]
    assert (second.status, second.files) == ("rejected", [])
    assert third.files == fourth.files == ["custom_kernels/a.metal"]
    assert [r.status for r in (first, third, fourth)] == ["discard"] * 3
    assert fifth.reason == "no change"
    assert good.status == "keep"
    assert git(repository, "status", "--porcelain") == ""


def test_a_proposer_that_is_trusted_gets_no_folder(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workspace, "laid_out", None)
    run_search(search)
    assert search.ledger.records()[1].status == "keep"


def test_a_night_goes_on_after_any_agent(search: Search, repository: Path) -> None:
    before = sum(p.stat().st_size for p in (repository / ".git").rglob("*") if p.is_file())
    left = {
        f"os.remove({CONFIG!r}); os.mkfifo({CONFIG!r})": f"guard: {CONFIG} is not a regular file",
        "shutil.rmtree('research'); os.symlink('research', 'research')": "guard: research is not a folder",
        "shutil.rmtree('src/mlx_autoresearch/recipe')": "guard: src/mlx_autoresearch/recipe is gone",
        f"os.remove({CONFIG!r})": f"{CONFIG} is gone",
        "open('custom_kernels/a.metal', 'w').truncate(150_000_000)": "guard: custom_kernels/a.metal is larger than",
        "Path('custom_kernels/a\\nb').touch(); os.chmod('src', 0); os.chmod('custom_kernels', 0o500)": "guard: ",
        "Path('tests').mkdir(); Path('notes.txt').touch()": "no change; notes.txt and 1 more left out: not among the",
    }
    *records, good = run_programs(search, *(START + program for program in left), START + GOOD + USUAL)
    for (program, reason), record in zip(left.items(), records, strict=True):
        assert record.status == "rejected", (program, record.reason)
        assert reason in record.reason, program
    assert (good.status, good.files) == ("keep", [CONFIG])
    assert not search.workspace.path.exists()
    assert sum(p.stat().st_size for p in (repository / ".git").rglob("*") if p.is_file()) < before + 1_000_000
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "fsck") == ""
