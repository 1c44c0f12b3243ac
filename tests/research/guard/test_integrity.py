"""Untrusted code that changes what is not its own is rejected, whatever its outcome; what it wrote is not believed.

Without Landlock nothing keeps it from writing, so these tests turn Landlock off.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mlx_autoresearch
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.data.prepared import open_prepared
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels.registry import kernel_folder
from mlx_autoresearch.ledger.ledger import Ledger, Record, Trial
from mlx_autoresearch.machine.paths import cache_dir
from mlx_autoresearch.research.editable import EXPERIMENT
from mlx_autoresearch.research.guard import integrity
from mlx_autoresearch.research.home import Search
from mlx_autoresearch.research.loop import run
from mlx_autoresearch.research.proposers.base import Context, Proposal, ProposalFailed
from mlx_autoresearch.research.workspace import Workspace
from mlx_autoresearch.sandbox import landlock
from mlx_autoresearch.trials.trial import TrialFailed
from tests.support.laboratory import Quiet, free_trial, make_search, run_search
from tests.support.vandals import (
    DAMAGE,
    PATCH,
    Damage,
    Honest,
    forge,
    raises,
    vandal,
)

damages = pytest.mark.parametrize(("damage", "name"), DAMAGE.values(), ids=DAMAGE)


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
    shutil.copytree(Path(mlx_autoresearch.__file__).parent, tmp_path / "installed/mlx_autoresearch")
    monkeypatch.setattr("mlx_autoresearch.research.guard.integrity._INSTALLED", tmp_path / "installed/mlx_autoresearch")
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


def test_a_library_planted_among_those_that_mlx_finds_again_is_noticed(search: Search) -> None:
    """Every later process would load it."""
    planted = cache_dir() / "compiled" / "any" / "libplanted.so"

    def damage(search: Search) -> None:
        planted.parent.mkdir(parents=True)
        planted.touch()

    search.run_trial = vandal(search, damage)
    try:
        run_search(search, experiments=1)
    finally:
        shutil.rmtree(planted.parent, ignore_errors=True)
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


@pytest.mark.parametrize(
    "damage",
    [
        lambda w: shutil.rmtree(w),
        lambda w: (shutil.rmtree(w), w.symlink_to("/tmp")),
        lambda w: (shutil.rmtree(w), w.touch()),
        lambda w: shutil.rmtree(w / ".git"),
        lambda w: (w / ".git/HEAD").write_text("x"),
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
    # Opened, it is read for its methods; under its lock once more, as another process may have gone on with it.
    assert calls == {"read": 1 + 2, "hash": 2 + 2, "yaml": 2 + 1}
    run_search(Search.open(search.home, run_trial=free_trial), experiments=1)  # which is kept, and measured again later
    assert calls == {"read": 1 + 2 + 2, "hash": 3 + 2 + 2, "yaml": 3 + 2}


def test_a_checkout_with_other_line_ends_holds_the_code_of_its_commit(tmp_path: Path) -> None:
    """As git makes it with core.autocrlf; every experiment would run the way of changed code."""
    shutil.copytree(integrity._INSTALLED / "recipe", tmp_path / "src/mlx_autoresearch/recipe")
    shutil.copytree(kernel_folder(), tmp_path / "custom_kernels")
    for path in (path for path in tmp_path.rglob("*.*") if path.is_file()):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert integrity.is_installed(tmp_path)
    kernel = tmp_path / "custom_kernels/rope.metal"
    kernel.write_bytes(kernel.read_bytes() + b"\r\n")
    assert not integrity.is_installed(tmp_path)


def test_what_macos_leaves_in_folders_is_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Finder's .DS_Store used to make every experiment run the way of changed code."""
    package = shutil.copytree(integrity._INSTALLED, tmp_path / "installed")
    kernels = shutil.copytree(kernel_folder(), tmp_path / "kernels")
    monkeypatch.setattr(integrity, "_INSTALLED", package)
    monkeypatch.setattr(integrity, "kernel_folder", lambda: kernels)
    before = integrity.installed_code_hash(), integrity.trusted_files()
    for folder in (package / "recipe", package / "metric", kernels):
        (folder / ".DS_Store").write_bytes(b"\0\1")
        (folder / "._x.metal").write_bytes(b"\0\5\x16")
        (folder / ".Spotlight").mkdir()
        (folder / ".Spotlight/x").write_bytes(b"\0")
    assert (integrity.installed_code_hash(), integrity.trusted_files()) == before
    (kernels / "rope.metal").write_text("changed")
    assert integrity.installed_code_hash() != before[0]
