"""Breaks a search at many random moments, and checks that nothing is lost and nothing is blamed for it.

    python scripts/break_nights.py [kill|disk|stop ...] [--moments N] [--seed S]

kill: SIGKILL of the search. disk: its disk, a tmpfs, is full for two seconds (takes root). stop: SIGSTOP of the search
with all its processes for six seconds. Every search trains for real, by time, settings and changed code in turn.
Prints a line for each kind; the exit code is 1 where a record is missing, twice there, or anything but keep and
discard.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(_ROOT))

from mlx_autoresearch.ledger.ledger import Ledger  # noqa: E402
from mlx_autoresearch.research.home import Search  # noqa: E402
from mlx_autoresearch.research.workspace import Workspace  # noqa: E402
from mlx_autoresearch.sandbox.processes import marked  # noqa: E402
from tests.support.corpus import make_corpus  # noqa: E402
from tests.support.laboratory import make_config, make_repository, make_search, run_search  # noqa: E402

_SECONDS = 1.5  # of a training
_FULL, _STOPPED = 2.0, 6.0  # seconds
_MODULE = "src/mlx_autoresearch/recipe/schedule.py"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=["kill", "disk", "stop"])
    parser.add_argument("--moments", type=int, default=10)
    parser.add_argument("--experiments", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    wrong = 0
    for kind in given.kinds:
        with tempfile.TemporaryDirectory() as folder:
            wrong += _break(kind, Path(folder), given.moments, given.experiments, random.Random(given.seed))
    return 1 if wrong else 0


def _break(kind: str, folder: Path, moments: int, experiments: int, rng: random.Random) -> int:
    parent = folder / "home"
    parent.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(parent)]
    if kind == "disk" and subprocess.run(mount, check=False).returncode:
        print("disk: not tried, because no file system can be mounted here")
        return 0
    try:
        repository = make_repository(folder / "checkout")
        search = _started(parent, repository, make_corpus(folder / "corpus"), experiments)
        act: Callable[[Search, int], None] = {"kill": _kill, "disk": _fill, "stop": _stop}[kind]
        started, done = time.monotonic(), 0
        process = _run(search.home)
        while process.poll() is None or (kind == "kill" and not _over(search, experiments)):
            if process.poll() is not None:
                process = _run(search.home)
            time.sleep(rng.uniform(0.5, 12))
            if done < moments and process.poll() is None:
                act(search, process.pid)
                done += 1
        problems = _problems(search, experiments, process.returncode)
        statuses = Counter(r.status for r in Ledger(search.ledger.path).records() if r.event == "experiment")
        took = time.monotonic() - started
        counts = ", ".join(f"{n} {status}" for status, n in statuses.items())
        print(
            f"{kind}: {done} times in {took:.0f} s; {counts}; {'; '.join(problems) or 'nothing lost, nothing blamed'}"
        )
        return len(problems)
    finally:
        if kind == "disk":
            subprocess.run(["umount", "-l", str(parent)], check=False)


def _started(parent: Path, repository: Path, corpus: Path, experiments: int) -> Search:
    start = make_config(corpus, max_steps=None, time_budget=_SECONDS)
    first = (repository / _MODULE).read_text().split("\n")[0]
    steps = []
    for i in range(experiments):
        patch = f"--- a/{_MODULE}\n+++ b/{_MODULE}\n@@ -1,1 +1,2 @@\n+# {i}\n {first}\n"
        change = {"patch": patch} if i % 2 else {"overrides": {"optimizer.matrix_lr": 0.04 * (1 + 0.1 * (i + 1))}}
        steps.append({"hypothesis": f"change {i}", **change})
    settings = make_search(start, steps, seeds={"baseline": 2, "best": 1, "most": 2})
    return Search.start(settings, parent, repository)


def _run(home: Path) -> subprocess.Popen[bytes]:
    """The search, in a process of its own that leads a group."""
    program = (
        f"import sys; sys.path[:0] = {sys.path!r}; from scripts import break_nights as b; b.resumed({str(home)!r})"
    )
    return subprocess.Popen([sys.executable, "-c", program], cwd=home.parents[1] / "checkout", start_new_session=True)


def resumed(home: str) -> None:
    """Resume the search in `home`, to its end."""
    run_search(Search.open(Path(home)))


def _over(search: Search, experiments: int) -> bool:
    return sum(r.event == "experiment" for r in Ledger(search.ledger.path).records()) >= experiments


def _kill(search: Search, process: int) -> None:
    os.kill(process, signal.SIGKILL)


def _fill(search: Search, process: int) -> None:
    ballast = search.home.parent / "ballast"
    until = time.monotonic() + _FULL
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while time.monotonic() < until:
            with suppress(OSError):
                file.write(bytes(1 << 16))
    ballast.unlink()


def _stop(search: Search, process: int) -> None:
    """All of them, and a moment later those that were started meanwhile."""
    for _ in range(2):
        for stopped in _tree(search, process):
            with suppress(ProcessLookupError):
                os.kill(stopped, signal.SIGSTOP)
    time.sleep(_STOPPED)
    for stopped in _tree(search, process):
        with suppress(ProcessLookupError):
            os.kill(stopped, signal.SIGCONT)


def _tree(search: Search, process: int) -> list[int]:
    """The search, its descendants, and whatever has its mark."""
    lines = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout.splitlines()
    parents = {int(pid): int(parent) for pid, parent in map(str.split, lines)}
    found = {process}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return [*found, *(p.pid for p in marked(search.mark) if p.pid not in found)]


def _problems(search: Search, experiments: int, returncode: int | None) -> list[str]:
    records = Ledger(search.ledger.path).records()
    numbers = [r.number for r in records if r.event != "remeasure"]
    problems = [
        f"experiment {r.number}: {r.status}, {r.reason}" for r in records if r.status not in ("keep", "discard")
    ]
    if returncode:
        problems.append(f"the search ended with exit code {returncode}")
    if numbers != list(range(experiments + 1)):
        problems.append(f"the ledger holds {json.dumps(numbers)}")
    best = Ledger(search.ledger.path).best()
    if best is not None and Workspace(search.repository, search.home, "test").best != best.commit:
        problems.append("the branch is not at the best")
    if len((search.home / "results.tsv").read_text().splitlines()) != 1 + len(numbers):
        problems.append("results.tsv is not whole")
    if marked(search.mark):
        problems.append("processes are left")
    return problems


if __name__ == "__main__":
    sys.exit(main())
