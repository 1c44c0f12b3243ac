"""Untrusted code that changes what is not its own is rejected, whatever its outcome; what it wrote is not believed.

Without Landlock nothing keeps it from writing, so these tests turn Landlock off.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.data.prepared import open_prepared
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.ledger.ledger import Ledger, Record, Trial
from mlx_autoresearch.machine.paths import cache_dir
from mlx_autoresearch.research.guard import integrity
from mlx_autoresearch.research.home import Search
from mlx_autoresearch.research.loop import run
from mlx_autoresearch.research.proposers.base import Context, Proposal, ProposalFailed
from mlx_autoresearch.research.workspace import EXPERIMENT, Workspace
from mlx_autoresearch.sandbox import landlock
from mlx_autoresearch.trials.trial import TrialFailed
from tests.support.laboratory import Quiet, free_trial, git, make_search, run_search

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
    "git's folder of the worktree": (lambda s: shutil.rmtree(s.repository / ".git/worktrees"), "git's worktrees"),
    "a file as git's folder of worktrees": (
        lambda s: (shutil.rmtree(s.repository / ".git/worktrees"), (s.repository / ".git/worktrees").touch()),
        "git's worktrees",
    ),
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
damages = pytest.mark.parametrize(("damage", "name"), DAMAGE.values(), ids=DAMAGE)


@pytest.fixture
def search(repository: Path, tiny: Config, monkeypatch: pytest.MonkeyPatch) -> Search:
    """Its first experiment changes code, its second one a learning rate, for the better."""
    monkeypatch.setattr(landlock, "version", lambda: 0)
    line = (repository / "src/mlx_autoresearch/recipe/schedule.py").read_text().split("\n")[0]
    git(repository, "commit", "-q", "--allow-empty", "-m", "second")
    git(repository, "checkout", "-q", "--detach")
    for name in ("notes/a", "inner/a"):
        (repository / name).parent.mkdir()
        (repository / name).write_text("mine, old\n")
    git(repository / "inner", "init", "-q")
    (repository / "link").symlink_to("notes")
    steps = [
        {"hypothesis": "code", "patch": PATCH.format(line=line)},
        {"hypothesis": "rate", "overrides": {"optimizer.matrix_lr": 0.001}},
    ]
    config = make_search(tiny, steps, seeds={"baseline": 2, "best": 1, "most": 2})
    return Search.start(config, repository / "runs", repository, run_trial=free_trial)


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


@damages
def test_a_trial_that_writes_outside_and_crashes_is_rejected(search: Search, damage: Damage, name: str) -> None:
    honest = Honest(search)
    search.run_trial = vandal(search, damage, raises(TrialFailed("exception", "TypeError: no such thing")))
    run_search(search)
    record, _ = honest.check()
    assert record.status == "rejected"
    said = f"{name} changed outside the run's own folder; it ended with exception: TypeError: no such thing"
    assert record.reason == f"guard: {said}"
    assert (search.home / "experiments/0001/output.txt").read_text() == said


ENDS = {
    "a result": lambda: None,
    "a timeout": raises(TrialFailed("timeout", "not finished after 5 s; killed")),
    "a kill": raises(TrialFailed("out of memory", "killed by the system")),
    "an error of ours": raises(OSError(5, "Input/output error")),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_it_is_rejected_however_it_ends(search: Search, end: Callable[[], object]) -> None:
    honest = Honest(search)
    search.run_trial = vandal(search, forge, end)
    run_search(search)
    record, _ = honest.check()
    assert (record.status, record.trials) == ("rejected", [])


def test_a_trial_that_changes_the_code_it_runs_is_rejected(search: Search) -> None:
    honest = Honest(search)
    search.run_trial = vandal(search, lambda s: (s.folder(1) / "code/src/mlx_autoresearch/recipe/new.py").touch())
    run_search(search)
    record, _ = honest.check()
    assert record.reason == "guard: the code that it runs changed outside the run's own folder"


@pytest.mark.parametrize("name", ["errors/__init__.pyc", "__pycache__/errors.cpython-399.pyc"])
def test_a_compiled_module_in_the_place_of_a_trusted_one_is_noticed(
    search: Search, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The installation is a copy here: what is planted must not be imported."""
    (tmp_path / "installed").mkdir()
    shutil.copytree(integrity._INSTALLED, tmp_path / "installed/mlx_autoresearch")
    monkeypatch.setattr(integrity, "_INSTALLED", tmp_path / "installed/mlx_autoresearch")
    planted = tmp_path / "installed/mlx_autoresearch" / name
    run_search(search, experiments=0)

    def damage(search: Search) -> None:
        planted.parent.mkdir(exist_ok=True)
        planted.touch()

    search.run_trial = vandal(search, damage)
    run_search(search, experiments=1) if "__pycache__" in name else None
    if "__pycache__" not in name:
        with pytest.raises(UserError, match="what results depend on has changed"):
            run_search(search)
    record = search.ledger.records()[1]
    assert record.status == "rejected"
    assert planted.name in record.reason


def test_a_home_in_the_checkout_that_git_does_not_ignore_is_the_searchs_own(
    repository: Path, tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landlock, "version", lambda: 0)
    line = (repository / "src/mlx_autoresearch/recipe/schedule.py").read_text().split("\n")[0]
    config = make_search(tiny, [{"hypothesis": "code", "patch": PATCH.format(line=line)}])
    search = Search.start(config, repository / "mine", repository, run_trial=free_trial)
    run_search(search)
    assert [r.status for r in search.ledger.records()][:2] == ["keep", "discard"]


def test_a_trial_that_stays_in_its_folder_is_not_blamed(search: Search) -> None:
    honest = Honest(search)
    search.run_trial = vandal(search, lambda s: (s.folder(1) / "42" / "more.txt").touch())
    run_search(search)
    record, _ = honest.check()
    assert record.status == "discard"


class Vandal:
    """A proposer that runs untrusted code, which does damage before the first experiment."""

    name, trusted = "vandal", False

    def __init__(self, search: Search, damage: Damage, end: Callable[[], object]):
        self.search, self.damage, self.end = search, damage, end

    def propose(self, context: Context) -> Proposal | None:
        if context.number == 1:
            self.damage(self.search)
            self.end()
        if context.number > 2:
            return None
        return Proposal(f"proposal {context.number}", "other", {"optimizer.matrix_lr": 0.001 / context.number})

    def told(self, record: Record) -> None: ...


@damages
def test_a_proposer_that_writes_outside_and_crashes_is_rejected(search: Search, damage: Damage, name: str) -> None:
    honest = Honest(search)
    run(search, Vandal(search, damage, raises(ProposalFailed("exception", "exit code 3"))), Quiet())
    record, _ = honest.check()
    assert record.status == "rejected"
    assert record.reason == f"guard: {name} changed outside the worktree"


@pytest.mark.parametrize("end", [lambda: None, raises(ProposalFailed("timeout", "killed"))], ids=["done", "timeout"])
def test_a_proposer_is_rejected_however_it_ends(search: Search, end: Callable[[], object]) -> None:
    honest = Honest(search)
    run(search, Vandal(search, forge, end), Quiet())
    record, _ = honest.check()
    assert record.reason == "guard: ledger.jsonl changed outside the worktree"


def test_where_the_search_is_stopped_its_files_are_put_back(search: Search) -> None:
    honest = Honest(search)
    search.run_trial = vandal(search, forge, raises(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run_search(search)
    assert Ledger(search.ledger.path).records() == [honest.baseline]
    search.run_trial = free_trial
    run_search(search)
    honest.check()


def symbolic_branch(search: Search) -> None:
    git(search.repository, "symbolic-ref", "refs/heads/research/test", "refs/heads/main")


SURVIVED = {
    "a folder as table": replaced("results.tsv", Path.mkdir),
    "a file as all experiments": replaced("experiments", Path.touch),
    "a file as the next folder": lambda s: own(s).touch(),
    "a link as the next folder": lambda s: own(s).symlink_to("0000"),
    "a protected folder as the next one": lambda s: (own(s) / "x/y").mkdir(parents=True) or (own(s) / "x").chmod(0),
    "a file as another's folder": replaced("experiments/0000", Path.touch),
    "no worktree": lambda s: shutil.rmtree(s.workspace.path),
    "no worktree in git": DAMAGE["git's folder of the worktree"][0],
    "a file as git's folder of worktrees": DAMAGE["a file as git's folder of worktrees"][0],
    "folders for git's files": lambda s: [
        (path.unlink(), path.mkdir())
        for path in (s.repository / ".git/worktrees/worktree" / name for name in ("HEAD", "index", "commondir"))
    ],
    "a symbolic branch": symbolic_branch,
}


@pytest.mark.parametrize("damage", SURVIVED.values(), ids=SURVIVED)
def test_a_search_that_was_killed_after_the_damage_can_be_resumed(search: Search, damage: Damage) -> None:
    honest = Honest(search)
    main = git(search.repository, "rev-parse", "main")
    damage(search)
    resumed = Search.open(search.home, run_trial=free_trial)
    run_search(resumed)
    assert [(r.number, r.status) for r in resumed.ledger.records()][:3] == [(0, "keep"), (1, "discard"), (2, "keep")]
    assert resumed.ledger.records()[0] == honest.baseline
    assert git(search.repository, "rev-parse", "main") == main


def no_checkpoint(search: Search) -> None:
    """The best's checkpoints, by a link in the place of the own run folder."""
    shutil.rmtree(own(search) / "42", ignore_errors=True)
    (own(search) / "42").symlink_to(search.home / "experiments/0000/42")


def test_the_weights_of_the_best_are_not_deleted_through_a_link(search: Search) -> None:
    honest = Honest(search)
    search.run_trial = vandal(search, no_checkpoint)
    run_search(search)
    honest.check()
    assert (search.home / "experiments/0000/42/checkpoint.safetensors").read_bytes() == b"weights"


@pytest.mark.parametrize("name", ["output.txt", "diff.patch"])
def test_nothing_is_written_through_a_link_in_the_experiments_folder(search: Search, name: str, tmp_path: Path) -> None:
    honest, victim = Honest(search), tmp_path / "victim"
    victim.write_text("dear")

    def damage(search: Search) -> None:
        (own(search) / name).symlink_to(victim)

    search.run_trial = vandal(search, damage, raises(TrialFailed("exception", "TypeError")))
    run_search(search)
    honest.check()
    assert victim.read_text() == "dear"
    assert (own(search) / name).is_file() and not (own(search) / name).is_symlink()


def test_a_folder_where_we_write_a_trials_output_costs_the_experiment_only(search: Search) -> None:
    honest = Honest(search)
    search.run_trial = vandal(
        search, lambda s: (own(s) / "42.txt").mkdir(), raises(IsADirectoryError(21, "Is a directory", "/x/42.txt"))
    )
    run_search(search)
    record, _ = honest.check()
    assert (record.status, record.reason.partition(";")[0]) == (
        "rejected",
        "guard: 42.txt changed outside the run's own folder",
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda w: shutil.rmtree(w),
        lambda w: (shutil.rmtree(w), w.symlink_to("/tmp")),
        lambda w: (shutil.rmtree(w), w.touch()),
        lambda w: (w.parents[2] / ".git/worktrees/worktree/index").write_text("x"),
        lambda w: (w.parents[2] / ".git/worktrees/worktree/HEAD").unlink(),
    ],
)
def test_an_agent_that_breaks_its_worktree_costs_the_experiment_only(search: Search, damage: Any) -> None:
    honest = Honest(search)
    run(search, Vandal(search, lambda s: damage(s.workspace.path), lambda: None), Quiet())
    first, _ = honest.check()
    assert first.status in ("rejected", "discard", "keep")


def test_where_git_fails_the_search_ends_and_believes_nothing(search: Search) -> None:
    honest = Honest(search)

    def damage(search: Search) -> None:
        forge(search)
        (search.repository / ".git").rename(search.repository / "git")

    search.run_trial = vandal(search, damage)
    with pytest.raises(UserError, match=r"cannot tell whether the checkout has changed: git .*not a git repository"):
        run_search(search)
    (search.repository / "git").rename(search.repository / ".git")
    assert Ledger(search.ledger.path).records() == [honest.baseline]


@pytest.fixture
def flip_a_token(tiny: Config):
    """Changes the validation text, until the test ends."""
    data = open_prepared(tiny.data.source, vocab_size=tiny.data.vocab_size, cache_dir=cache_dir())
    tokens = data.path / next(iter(data.manifest.splits["val"].files))
    honest = tokens.read_bytes()
    yield lambda *_: tokens.write_bytes(honest[:-1] + bytes([honest[-1] ^ 1]))
    tokens.write_bytes(honest)


def test_untrusted_code_that_changes_what_results_depend_on_is_rejected_and_ends_the_search(
    search: Search, flip_a_token: Damage
) -> None:
    run_search(search, experiments=0)
    search.run_trial = vandal(search, flip_a_token, raises(TrialFailed("exception", "TypeError")))
    with pytest.raises(UserError, match="what results depend on has changed"):
        run_search(search)
    record = search.ledger.records()[-1]
    assert (record.number, record.status) == (1, "rejected")
    assert record.reason.endswith("changed, which results depend on")


def test_when_somebody_else_changes_what_results_depend_on_the_experiment_is_forgotten(
    repository: Path, tiny: Config, flip_a_token: Damage
) -> None:
    def trial(config: Config, **given: Any) -> Trial:
        if config.optimizer.matrix_lr == 0.001:
            flip_a_token(search)
        return free_trial(config, **given)

    steps = [{"hypothesis": "rate", "overrides": {"optimizer.matrix_lr": 0.001}}]
    search = Search.start(make_search(tiny, steps), repository / "runs", repository, run_trial=trial)
    with pytest.raises(UserError, match="what results depend on has changed"):
        run_search(search)
    assert [r.event for r in Ledger(search.ledger.path).records()] == ["baseline"]


def test_a_search_with_results_and_without_hashes_is_refused(search: Search) -> None:
    run_search(search, experiments=0)
    (search.home / "state.json").unlink()
    with pytest.raises(UserError, match=r"state\.json cannot be read"):
        run_search(Search.open(search.home, run_trial=free_trial))


def test_the_ledger_and_a_commits_settings_are_read_once_and_hashes_are_taken_twice_an_experiment(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"read": 0, "hash": 0, "yaml": 0}

    def counted(owner: Any, name: str, key: str) -> None:
        function = getattr(owner, name)

        def call(*arguments: Any) -> Any:
            calls[key] += key != "yaml" or arguments[-1] == EXPERIMENT
            return function(*arguments)

        monkeypatch.setattr(owner, name, call)

    counted(Ledger, "read", "read")
    counted(integrity, "trusted_files", "hash")
    counted(Workspace, "read", "yaml")
    run_search(search, experiments=0)
    assert calls == {"read": 1, "hash": 1, "yaml": 1}
    resumed = Search.open(search.home, run_trial=free_trial)
    run_search(resumed, experiments=1)
    assert resumed.ledger.records()[-1].kind == "other"
    assert calls == {"read": 2, "hash": 2 + 2, "yaml": 2 + 1}
    run_search(Search.open(search.home, run_trial=free_trial), experiments=1)  # which is kept, and measured again later
    assert calls == {"read": 3, "hash": 3 + 2 + 2, "yaml": 3 + 2}
