"""kill -9 at any moment: the ledger, the branch and the process table survive it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.ledger.ledger import Ledger, Trial
from mlx_autoresearch.research.home import Search
from mlx_autoresearch.sandbox import processes
from mlx_autoresearch.sandbox.command import run_command
from mlx_autoresearch.sandbox.environment import clean_environment
from mlx_autoresearch.trials.trial import run_trial
from tests.support.laboratory import daemon, free_trial, git, make_search, run_search

_STEPS = [
    {"hypothesis": f"learning rate {x}", "overrides": {"optimizer.matrix_lr": x}}
    for x in (0.5, 0.03, 0.4, 0.02, 0.3, 0.01, 0.2, 0.005, 0.1, 0.9)
]


def trial_with_processes(config: Config, *, folder: Path, mark: str, **given: Any) -> Trial:
    """A free trial during which a process and its daemon run."""
    command = ["sh", "-c", f"{daemon()}; sleep 0.03"]
    run_command(command, cwd=folder.parent, env=clean_environment(folder, folder), seconds=60, mark=mark)
    return free_trial(config, folder=folder, **given)


def kill_at_random_moments(home: Path, kills: int, run: Any) -> int:
    """Resume in a forked process and kill it, again and again; how many times it was really killed.

    The first time as soon as something is measured, after that within one and a half times as long: on any machine this
    hits every part of an experiment, and the search is not over too soon.
    """
    rng = random.Random(0)
    killed, first = 0, None
    for _ in range(kills):
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            try:
                run_search(Search.open(home, run_trial=run))
            finally:
                os._exit(0)
        if first is None:
            while not Ledger(home / "ledger.jsonl").records():
                time.sleep(0.01)
            first = time.monotonic() - started
        else:
            time.sleep(rng.uniform(0, 1.5 * first))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        killed += os.WIFSIGNALED(status)
        Ledger(home / "ledger.jsonl").records()  # readable at any time
    return killed


def check(search: Search, repository: Path) -> None:
    records = search.ledger.records()
    numbers = [r.number for r in records if r.event != "remeasure"]
    assert numbers == list(range(len(_STEPS) + 1)), "every experiment once, in order"
    assert len({(r.event, r.number, tuple(t.seed for t in r.trials)) for r in records}) == len(records)
    best = search.ledger.best()
    assert best is not None
    assert git(repository, "rev-parse", "research/test").strip() == best.commit
    assert not search.workspace.path.exists()
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "fsck", "--connectivity-only", "--no-dangling") == ""
    for record in records:
        assert git(repository, "cat-file", "-t", record.commit).strip() == "commit"
    assert not processes.marked(f"research:{search.home}")


def test_a_killed_search_resumes_as_if_nothing_had_happened(repository: Path, tiny: Config) -> None:
    # In a process of its own: it forks, and pytest should not.
    done = subprocess.run(
        [sys.executable, "-m", "tests.research.test_crash", str(repository), tiny.model_dump_json(), "30", "free"],
        capture_output=True, text=True, timeout=300, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 10, "the kills came too late to hit anything"


def test_a_search_with_the_real_trainer_survives_kills(repository: Path, tiny: Config) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.research.test_crash", str(repository), tiny.model_dump_json(), "3", "real"],
        capture_output=True, text=True, timeout=300, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_nothing_outlives_a_killed_parent_by_more_than_a_moment(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; import sys\n"
        "from mlx_autoresearch.sandbox.command import run_command\n"
        "from mlx_autoresearch.sandbox.environment import clean_environment\n"
        "here = Path(sys.argv[1])\n"
        "run_command(['sh', '-c', sys.argv[2] + '; echo > started; sleep 300'], cwd=here, mark=str(here),\n"
        "    env=clean_environment(here, here), seconds=300)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), daemon()])
    until = time.monotonic() + 30
    while not (tmp_path / "started").exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert processes.marked(str(tmp_path))
    parent.kill()
    parent.wait()
    while processes.marked(str(tmp_path)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not processes.marked(str(tmp_path))


def main(repository: Path, config: Config, kills: int, kind: str) -> None:
    run = trial_with_processes if kind == "free" else run_trial
    steps = _STEPS if kind == "free" else _STEPS[:2]
    _STEPS[:] = steps
    settings = make_search(config, steps, seeds={"baseline": 2, "best": 1, "most": 2})
    search = Search.start(settings, repository / "runs", repository, run_trial=run)
    killed = kill_at_random_moments(search.home, kills, run)
    last = Search.open(search.home, run_trial=run)
    run_search(last)
    check(last, repository)
    print(killed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Config.model_validate_json(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
