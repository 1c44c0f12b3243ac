"""Whatever is raised on the way of an experiment: who is blamed, what is recorded, and that the search goes on."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import RunFailed, UserError
from mlx_autoresearch.ledger.ledger import Ledger, Record, Trial
from mlx_autoresearch.machine import disk
from mlx_autoresearch.research import fault
from mlx_autoresearch.research.home import Search
from mlx_autoresearch.research.loop import run
from mlx_autoresearch.research.proposers.base import Context, Proposal
from mlx_autoresearch.research.proposers.make import make_proposer
from mlx_autoresearch.research.workspace import Workspace
from mlx_autoresearch.trials.trial import TrialFailed
from tests.support.laboratory import Quiet, free_trial, make_search, run_search

ERRORS = {
    "RecursionError": RecursionError("maximum recursion depth exceeded"),
    "MemoryError": MemoryError(),
    "OSError": OSError(errno.ELOOP, "Too many levels of symbolic links"),
    "UnicodeDecodeError": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "KeyError": KeyError("no such key"),
    "RuntimeError": RuntimeError("[reshape] Cannot reshape\nan array"),
    "UserError": UserError("git add: fatal: cannot add x"),
}
VALUES = (0.03, 0.5, 0.02)


class Proposals:
    """Learning rates; `wrong`, where given, is done in the place of the first proposal."""

    name = "test"

    def __init__(self, wrong: Any = None, *, trusted: bool = False, always: bool = False, after: int = 0):
        self.trusted, self._wrong, self._always, self._after = trusted, wrong, always, after

    def propose(self, context: Context) -> Proposal | None:
        if self._wrong is not None and (context.number == 1 or self._always):
            self._wrong(context)
        if context.number > len(VALUES) + self._after:
            return None
        value = VALUES[context.number - 1 - self._after]
        return Proposal(f"learning rate {value}", "test", {"optimizer.matrix_lr": value})

    def told(self, record: Record) -> None: ...


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(fault, "_REST_SECONDS", 0.0)


@pytest.fixture
def search(repository: Path, tiny: Config) -> Search:
    config = make_search(tiny, [step(value) for value in VALUES], seeds={"baseline": 2, "best": 1, "most": 2})
    return Search.start(config, repository / "runs", repository, run_trial=free_trial)


def step(value: float) -> dict[str, Any]:
    return {"hypothesis": f"learning rate {value}", "overrides": {"optimizer.matrix_lr": value}}


def raising(error: Exception) -> Any:
    def wrong(*_: object, **__: object) -> None:
        raise error

    return wrong


def experiments(search: Search) -> list[Record]:
    return [r for r in search.ledger.records() if r.event == "experiment"]


def statuses(search: Search) -> list[str]:
    return [r.status for r in experiments(search)]


def test_what_a_proposal_raises_is_recorded_and_the_search_goes_on(search: Search) -> None:
    def wrong(context: Context) -> None:
        if context.number <= len(ERRORS):
            (context.worktree / "left").mkdir()
            raise list(ERRORS.values())[context.number - 1]

    run(search, Proposals(wrong, always=True, after=len(ERRORS)), Quiet())
    for record, name in zip(experiments(search), ERRORS, strict=False):
        assert record.status == ("rejected" if name == "UserError" else "crash")
        assert ("git add" if name == "UserError" else f"internal error: {name}") in record.reason
        assert "\n" not in record.reason
        assert name in (search.folder(record.number) / "traceback.txt").read_text()
    assert statuses(search)[len(ERRORS) :] == ["keep", "discard", "keep"]
    assert not (search.workspace.path / "left").exists()


def test_what_a_trial_raises_is_recorded_and_the_search_goes_on(search: Search) -> None:
    left = list(ERRORS.values())

    def trial(config: Config, *, folder: Path, **given: Any) -> Trial:
        if config.optimizer.matrix_lr == 0.5:
            folder.mkdir(parents=True)
            raise left.pop(0)
        return free_trial(config, folder=folder, **given)

    search.run_trial = trial
    config = [step(0.5)] * len(ERRORS) + [step(0.02)]
    run(search, make_proposer(make_search(search.config.start, config)), Quiet())
    assert statuses(search) == [*["crash"] * (len(ERRORS) - 1), "rejected", "keep"]


def test_a_value_that_the_ledger_cannot_hold_does_not_end_the_search(search: Search) -> None:
    def odd(context: Context) -> None:
        text = (context.worktree / "research/experiment.yaml").read_text()
        odd_values = "\nrecipe:\n  z: .nan\n  big: 0x" + 5000 * "f" + "\n"
        (context.worktree / "research/experiment.yaml").write_text(text.replace("\nrecipe: {}\n", "\n") + odd_values)

    run(search, Proposals(odd), Quiet())
    assert len(experiments(search)) == 3
    assert Ledger(search.ledger.path).records() == search.ledger.records()


def test_the_same_internal_error_of_a_trusted_proposer_stops_the_search_with_a_line(search: Search) -> None:
    with pytest.raises(RunFailed, match=r"3 experiments in a row .*KeyError: 'mine'.*traceback.txt.*report it"):
        run(search, Proposals(raising(KeyError("mine")), trusted=True, always=True), Quiet())
    assert statuses(search) == ["crash"] * 3


def test_an_agent_cannot_stop_the_search_by_the_same_error(search: Search) -> None:
    run(search, Proposals(raising(KeyError("mine")), always=True), Quiet(), experiments=5)
    assert statuses(search) == ["crash"] * 5


def test_an_error_between_experiments_stops_the_search_with_a_line(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_search(search, experiments=1)
    with monkeypatch.context() as patch:
        patch.setattr("mlx_autoresearch.research.champion.Champion.refresh", raising(IndexError("ours")))
        with pytest.raises(RunFailed, match=r"cannot go on: internal error: IndexError: ours, 4 times in a row"):
            run_search(search)
    assert "IndexError" in (search.home / "traceback.txt").read_text()
    run_search(Search.open(search.home, run_trial=free_trial))
    assert statuses(Search.open(search.home)) == ["keep", "discard", "keep"]


def test_an_error_is_tried_again_between_experiments(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlx_autoresearch.research.champion import Champion

    refresh, calls = Champion.refresh, []

    def sometimes(self: Champion) -> None:
        calls.append(1)
        if len(calls) % 2:
            raise IndexError("ours")
        refresh(self)

    monkeypatch.setattr(Champion, "refresh", sometimes)
    run_search(search)
    assert statuses(search) == ["keep", "discard", "keep"]


def test_a_diff_that_cannot_be_shown_does_not_end_the_search(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search.workspace, "diff", raising(MemoryError()))
    run_search(search)
    assert statuses(search) == ["keep", "discard", "keep"]
    assert (search.home / "experiments/0001/diff.patch").read_text() == "internal error: MemoryError"


def test_a_worktree_that_cannot_be_reset_is_made_anew(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = Workspace.keep

    def refuses(workspace: Workspace, commit: str) -> None:
        if (workspace.path / "left").exists():
            raise UserError("git clean: fatal: cannot remove left")
        keep(workspace, commit)

    monkeypatch.setattr(Workspace, "keep", refuses)
    proposals = Proposals(lambda context: (context.worktree / "left").touch(), always=True)
    run(search, proposals, Quiet(), experiments=2)
    assert len(statuses(search)) == 2


def test_a_broken_repository_is_not_the_proposals_fault(search: Search) -> None:
    def breaks(context: Context) -> None:
        (search.repository / ".git/HEAD").unlink()
        raise UserError("git add: fatal: not a git repository")

    run_search(search, experiments=0)
    with pytest.raises(UserError, match="git"):
        run(search, Proposals(breaks, trusted=True), Quiet())
    assert statuses(search) == []
    (search.repository / ".git/HEAD").write_text("ref: refs/heads/main\n")
    run_search(Search.open(search.home, run_trial=free_trial))


def test_a_lost_device_is_not_the_proposals_fault(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault, "require_working", raising(RunFailed("the device computes no more")))
    with pytest.raises(RunFailed, match="computes no more"):
        run(search, Proposals(raising(RuntimeError("device lost"))), Quiet())
    assert statuses(search) == []


def test_a_reader_of_the_output_that_has_gone_ends_the_search(search: Search) -> None:
    class Gone(Quiet):
        def doing(self, what: str) -> None:
            if "waiting for" in what:
                raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_search(search, Gone())
    assert statuses(search) == []


def test_what_a_proposer_cannot_learn_from_does_not_end_the_search(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposals, view = Proposals(), Quiet()
    monkeypatch.setattr(proposals, "told", raising(KeyError("odd")))
    run(search, proposals, view)
    assert statuses(search) == ["keep", "discard", "keep"]
    assert any("does not learn from experiment 1" in line for line in view.lines)


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_trial_that_a_disk_has_ended_is_repeated(search: Search, number: int) -> None:
    calls = []

    def trial(config: Config, **given: Any) -> Trial:
        calls.append(config.optimizer.matrix_lr)
        if calls.count(0.5) == 1 and calls[-1] == 0.5:
            raise OSError(number, os.strerror(number))
        if calls.count(0.02) == 1 and calls[-1] == 0.02:
            raise TrialFailed("disk", "0 bytes free")
        return free_trial(config, **given)

    search.run_trial, view = trial, Quiet()
    run_search(search, view)
    assert statuses(search) == ["keep", "discard", "keep"]
    assert sum("this trial is repeated" in line for line in view.lines) == 2


def test_a_proposal_that_fills_the_disk_whenever_it_is_tried_is_to_blame(search: Search) -> None:
    run(search, Proposals(full), Quiet())
    assert statuses(search) == ["crash", "discard", "keep"]
    assert "No space left" in experiments(search)[0].reason


@pytest.mark.parametrize("moments", [(5, 150, 300), (40, 130, 270)])
def test_a_disk_that_fills_at_many_moments_costs_nothing(
    search: Search, monkeypatch: pytest.MonkeyPatch, moments: tuple[int, ...]
) -> None:
    """Some of the moments at which this process writes, makes durable, renames or calls git."""
    calls: list[str] = []
    run_search(search, experiments=0)

    def failing(name: str, real: Any) -> Any:
        def write(*arguments: Any, **given: Any) -> Any:
            calls.append(name)
            if len(calls) in moments:
                full()
            return real(*arguments, **given)

        return write

    with monkeypatch.context() as patch:
        for place, name in ((os, "fsync"), (os, "mkdir"), (Path, "write_text"), (Path, "write_bytes")):
            patch.setattr(place, name, failing(name, getattr(place, name)))
        patch.setattr(Path, "replace", failing("replace", Path.replace))
        patch.setattr(subprocess, "run", failing("git", subprocess.run))
        run_search(search)
    assert len(calls) > moments[-1]
    assert statuses(search) == ["keep", "discard", "keep"]
    assert Ledger(search.ledger.path).records() == search.ledger.records()
    assert len((search.home / "results.tsv").read_text().splitlines()) == 1 + 1 + 3
    assert not search.workspace.path.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("no file system can be mounted here: that takes root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("during", ["proposal", "trial"])
def test_a_full_disk_is_waited_for_and_nothing_is_blamed(
    repository: Path, tiny: Config, small_disk: Path, monkeypatch: pytest.MonkeyPatch, during: str
) -> None:
    ballast = small_disk / "ballast"

    def fill() -> None:
        if not filled:
            filled.append(1)
            with pytest.raises(OSError, match="No space"), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(1 << 16))
            raise OSError(errno.ENOSPC, "No space left on device")

    class Watching(Quiet):
        def say(self, line: str) -> None:
            super().say(line)
            if line.startswith("waiting: "):
                ballast.unlink()

    def trial(config: Config, **given: Any) -> Trial:
        if during == "trial" and config.optimizer.matrix_lr == 0.5:
            fill()
        return free_trial(config, **given)

    filled: list[int] = []
    config = make_search(tiny, seeds={"baseline": 2, "best": 1, "most": 2})
    search = Search.start(config, small_disk, repository, run_trial=trial)
    view = Watching()
    run(search, Proposals(lambda _: fill() if during == "proposal" else None, trusted=True), view)
    assert statuses(search) == ["keep", "discard", "keep"]
    if during == "trial":  # else what the proposal has written is deleted, and that is room enough
        assert len([line for line in view.lines if f"waiting: 0 bytes free on {search.home};" in line]) == 1
    assert Ledger(search.ledger.path).records() == search.ledger.records()


def test_a_search_is_not_started_on_a_full_disk(repository: Path, tiny: Config, small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space"), (small_disk / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    with pytest.raises(UserError, match=rf"0 bytes free on {small_disk}"):
        Search.start(make_search(tiny), small_disk, repository, run_trial=free_trial)
