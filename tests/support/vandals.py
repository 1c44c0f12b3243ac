"""What untrusted code may do to a search without Landlock, trials that do it, and what must be left afterwards."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.ledger.ledger import Ledger, Record, Trial
from mlx_autoresearch.research.home import Search
from tests.support.laboratory import free_trial, git, run_search

PATCH = """\
--- a/src/mlx_autoresearch/recipe/schedule.py
+++ b/src/mlx_autoresearch/recipe/schedule.py
@@ -1 +1,2 @@
+# changed
 {line}
"""


Damage = Callable[[Search], object]


def forge(search: Search) -> None:
    """A baseline so bad that anything would be kept."""
    lines = search.ledger.path.read_text().splitlines()
    baseline = json.loads(lines[0])
    for trial in baseline["trials"]:
        trial["val_bpb"] += 7
    search.ledger.path.write_text("\n".join([json.dumps(baseline), *lines[1:]]) + "\n")


def replaced(name: str, make: Callable[[Path], object]) -> Damage:
    """A file or folder of the home, with something else in its place."""

    def damage(search: Search) -> None:
        path = search.home / name
        path.rename(path.with_name("moved"))
        make(path)

    return damage


def own(search: Search) -> Path:
    """The first experiment's folder."""
    return search.home / "experiments/0001"


def edit(path: Path) -> None:
    """Another content of the same length, and the modification time of before."""
    times = path.stat() if path.exists() else None
    path.write_text("mine, now\n")
    if times:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def retarget(link: Path) -> None:
    link.unlink()
    link.symlink_to("inner")


def hide(search: Search, how: str) -> None:
    git(search.repository, "update-index", how, "README.md")
    edit(search.repository / "README.md")


def alternates(search: Search) -> Path:
    path = search.repository / ".git/objects/info/alternates"
    path.write_text("")
    return path


DAMAGE: dict[str, tuple[Damage, str]] = {
    "a changed ledger": (forge, "ledger.jsonl"),
    "a truncated ledger": (lambda s: os.truncate(s.ledger.path, 300), "ledger.jsonl"),
    "a longer ledger": (lambda s: s.ledger.path.write_text(2 * s.ledger.path.read_text()), "ledger.jsonl"),
    "a deleted ledger": (lambda s: s.ledger.path.unlink(), "ledger.jsonl"),
    "a link to a ledger": (replaced("ledger.jsonl", lambda p: p.symlink_to("moved")), "ledger.jsonl"),
    "a folder as ledger": (replaced("ledger.jsonl", Path.mkdir), "ledger.jsonl"),
    "changed settings": (lambda s: (s.home / "research.yaml").write_text("tag: mine\n"), "research.yaml"),
    "deleted settings": (lambda s: (s.home / "research.yaml").unlink(), "research.yaml"),
    "changed hashes": (lambda s: (s.home / "state.json").write_text("{}"), "state.json"),
    "deleted hashes": (lambda s: (s.home / "state.json").unlink(), "state.json"),
    "a folder as table": (replaced("results.tsv", Path.mkdir), "results.tsv"),
    "a link as table": (replaced("results.tsv", lambda p: p.symlink_to("moved")), "results.tsv"),
    "no lock": (lambda s: (s.home / ".lock").unlink(), ".lock"),
    "no home": (lambda s: shutil.rmtree(s.home), "ledger.jsonl"),
    "a file as home": (lambda s: (shutil.rmtree(s.home), s.home.touch()), "ledger.jsonl"),
    "a link as home": (lambda s: (s.home.rename(s.home.with_name("x")), s.home.symlink_to("x")), "ledger.jsonl"),
    "a file as all experiments": (replaced("experiments", Path.touch), "experiments"),
    "no own folder": (lambda s: shutil.rmtree(own(s), ignore_errors=True), "experiments/0001"),
    "a file as own folder": (replaced("experiments/0001", Path.touch), "experiments/0001"),
    "a link as own folder": (replaced("experiments/0001", lambda p: p.symlink_to("moved")), "experiments/0001"),
    "a link as own folder, to the best's": (
        replaced("experiments/0001", lambda p: p.symlink_to("0000")),
        "experiments/0001",
    ),
    "a file as another's folder": (replaced("experiments/0000", Path.touch), "experiments/0000"),
    "the user's worktrees": (lambda s: shutil.rmtree(s.repository / ".git/worktrees"), "git's worktrees"),
    "another experiment's file": (
        lambda s: (s.home / "experiments/0000/42/checkpoint.safetensors").write_bytes(b"WEIGHTS"),
        "experiments/0000/42/checkpoint.safetensors",
    ),
    "another experiment's new file": (lambda s: (s.home / "experiments/0000/x").touch(), "experiments/0000/x"),
    "another experiment's folder": (lambda s: shutil.rmtree(s.home / "experiments/0000"), "experiments/0000"),
    "a link to an experiment's folder": (
        replaced("experiments/0000", lambda p: p.symlink_to("moved")),
        "experiments/0000",
    ),
    "a file of the checkout": (lambda s: (s.repository / "README.md").write_text("mine\n"), "README.md"),
    "a new file of the checkout": (lambda s: (s.repository / "new.py").touch(), "new.py"),
    "a branch of the checkout": (lambda s: git(s.repository, "branch", "mine"), "refs/heads/mine"),
    "a file in a new folder": (lambda s: (s.repository / "notes/b").touch(), "notes/b"),
    "an edited file in a new folder": (lambda s: edit(s.repository / "notes/a"), "notes/a"),
    "a file with the same time": (lambda s: edit(s.repository / "README.md"), "README.md"),
    "another target of a link": (lambda s: retarget(s.repository / "link"), "link"),
    "a mode": (lambda s: (s.repository / "notes/a").chmod(0o700), "notes/a"),
    "a file in a repository inside": (lambda s: edit(s.repository / "inner/a"), "inner/a"),
    "a moved HEAD": (lambda s: git(s.repository, "reset", "-q", "--hard", "HEAD~1"), "HEAD"),
    "a hook": (lambda s: (s.repository / ".git/hooks/post-checkout").touch(), ".git/hooks/post-checkout"),
    "git's exclude": (lambda s: edit(s.repository / ".git/info/exclude"), ".git/info/exclude"),
    "git's attributes": (lambda s: edit(s.repository / ".git/info/attributes"), ".git/info/attributes"),
    "git's alternates": (lambda s: edit(alternates(s)), ".git/objects/info/alternates"),
    "git's settings for the worktree": (lambda s: edit(s.repository / ".git/config.worktree"), "git settings"),
    "an edit that git assumes away": (lambda s: hide(s, "--assume-unchanged"), "README.md"),
    "an edit that git skips": (lambda s: hide(s, "--skip-worktree"), "README.md"),
    "a staged file": (lambda s: git(s.repository, "rm", "-q", "--cached", "README.md"), "git's index"),
    "git's settings": (lambda s: git(s.repository, "config", "core.editor", "mine"), "git settings"),
}


class Honest:
    """What must be in the home whatever untrusted code did: what was there before it ran."""

    def __init__(self, search: Search):
        self.search = search
        run_search(search, experiments=0)
        self.files = {name: (search.home / name).read_bytes() for name in ("research.yaml", "state.json")}
        [self.baseline] = search.ledger.records()

    def check(self) -> tuple[Record, Record]:
        """The records of the two experiments; the second one was judged by the true baseline."""
        home = self.search.home
        records = Ledger(home / "ledger.jsonl").records()
        assert records == self.search.ledger.records()
        baseline, first, second, *_ = records
        assert baseline == self.baseline
        assert second.status == "keep", second.reason
        assert {name: (home / name).read_bytes() for name in self.files} == self.files
        assert not any((home / name).is_symlink() for name in ("ledger.jsonl", *self.files))
        rows = [r for r in records if r.event != "remeasure"]
        assert len((home / "results.tsv").read_text().splitlines()) == 1 + len(rows)
        run_search(Search.open(home, run_trial=free_trial))  # and it can be resumed
        return first, second


def vandal(search: Search, damage: Damage, end: Callable[[], object] = lambda: None) -> Callable[..., Trial]:
    """Trials of changed code do the damage, and then end as they are told; others are free."""

    def trial(config: Config, *, code: Path | None, **given: Any) -> Trial:
        result = free_trial(config, code=code, **given)
        if code is not None:
            damage(search)
            end()
        return result

    return trial


def raises(error: BaseException) -> Callable[[], object]:
    def end() -> None:
        raise error

    return end
