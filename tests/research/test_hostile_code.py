"""Changed code that nobody should trust: what it leaves, pretends or reads past the guard is its own end alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.ledger.ledger import Trial
from mlx_autoresearch.research.fault import INTERNAL
from mlx_autoresearch.research.guard import rules
from mlx_autoresearch.research.guard.scan import scan
from mlx_autoresearch.research.home import Search
from mlx_autoresearch.trials.trial import TrialFailed, run_trial
from tests.support.laboratory import free_trial, git, make_search, run_programs

SCHEDULE = "src/mlx_autoresearch/recipe/schedule.py"
GOOD = """
from pathlib import Path
file = Path("research/experiment.yaml")
file.write_text(file.read_text().replace("matrix_lr: 0.04", "matrix_lr: 0.001"))
"""


@pytest.fixture
def search(repository: Path, tiny: Config) -> Search:
    config = make_search(tiny, seeds={"baseline": 2, "best": 1, "most": 2})
    return Search.start(config, repository / "runs", repository, run_trial=real_where_code_changed)


def real_where_code_changed(config: Config, *, code: Path | None, **given: Any) -> Trial:
    return (free_trial if code is None else run_trial)(config, code=code, **given)


def added(code: str) -> str:
    """A program that adds code to schedule.py, which is run when it is imported."""
    return f"open({SCHEDULE!r}, 'a').write({code!r})"


LEFT = {  # what code that is past the guard leaves in its run's place, and how that is told
    "": "no checkpoint: the training left no folder of a run",
    "open('run', 'w')": "no checkpoint: the training left no folder of a run",
    "os.mkfifo('run')": "no checkpoint: the training left no folder of a run",
    "os.mkdir('run', 0)": "no checkpoint: ",
    "os.symlink('/', 'run')": "guard: the run's folder holds something else than files",
    "os.mkdir('run'); os.mkfifo('run/metrics.jsonl')": "guard: the run's folder holds something else than files",
    "os.makedirs('run/checkpoint.safetensors')": "guard: the run's folder holds something else than files",
    "os.mkdir('run'); open('run/summary.json', 'w').truncate(1 << 21)": "output: left 2,097,152 bytes in summary.json",
    "os.mkdir('run'); open('run/metrics.jsonl', 'w').truncate(1 << 40)": "output: left 1,099,511,627,776 bytes in metr",
}


def test_what_is_left_in_a_runs_place_is_the_codes_own_end(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of it is an error of ours: three of these in a row would let the night rest, or blame this program."""
    monkeypatch.setattr(rules, "scan", lambda *_: [])
    programs = [added(f"\nimport os\n{code}\nos._exit(0)\n") for code in LEFT]
    *bad, good = run_programs(search, *programs, GOOD)
    for (code, reason), record in zip(LEFT.items(), bad, strict=True):
        assert record.reason.startswith(reason), (code, record.reason)
        assert record.trials == []
    assert good.status == "keep", good.reason
    assert git(search.repository, "status", "--porcelain") == ""


def test_code_that_passes_the_guard_and_ends_well_before_it_begins(search: Search) -> None:
    """A process that ends with code 0 has not trained for that."""
    bad, good = run_programs(search, added("\nraise SystemExit(0)\n"), GOOD)
    assert (bad.status, bad.trials) == ("crash", [])
    assert bad.reason.startswith("no checkpoint: ") and INTERNAL not in bad.reason
    assert good.status == "keep"


def test_code_that_fails_where_it_is_scored_alone(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "scan", lambda *_: [])
    code = "\nimport sys\nif 'logits' in sys.argv:\n    print('\\x1b[2Jnot here', flush=True)\n    sys.exit(0)\n"
    bad, good = run_programs(search, added(code), GOOD)
    assert (bad.status, bad.trials) == ("rejected", [])
    assert bad.reason == "metric: the process that computes logits ended: not here"
    assert good.status == "keep"


@pytest.mark.parametrize(
    ("failure", "times"),
    [
        (TrialFailed("disk", "a disk took no more\nOSError: No space left on device"), 3),
        (TrialFailed("metric", "the process that computes logits ended: No space left on device"), 3),
        (OSError(28, "No space left on device"), 12),  # nothing in a proposal raises this in our own process
    ],
    ids=["training", "scoring", "ours"],
)
def test_a_disk_that_is_said_to_be_full_is_believed_a_few_times(search: Search, failure: Exception, times: int) -> None:
    """Each time a trial is lost; then it is the code's own end, and the night goes on."""
    seen: list[int] = []

    def trial(config: Config, *, code: Path | None, seed: int, **given: Any) -> Trial:
        if code is not None:
            seen.append(seed)
            raise failure
        return free_trial(config, code=code, seed=seed, **given)

    search.run_trial = trial
    bad, good = run_programs(search, added("# a comment\n"), GOOD)
    assert bad.status in ("crash", "rejected") and bad.trials == []
    assert len(seen) == times
    assert good.status == "keep"


def test_a_best_that_cannot_be_measured_again_is_taken_back(search: Search) -> None:
    """It shows its gain where it is judged, knows its seeds, and then fails: no luck is found out, no rival decided."""
    first: list[int] = []

    def trial(config: Config, *, code: Path | None, seed: int, **given: Any) -> Trial:
        result = free_trial(config, code=code, seed=seed, **given)
        if code is None:
            return result
        if not first:
            first.append(seed)
        if seed - first[0] > 1:
            raise TrialFailed("exception", "RuntimeError: not with this seed")
        return replace(result, val_bpb=result.val_bpb - 0.02)

    search.run_trial = trial
    lucky, _ = run_programs(search, added("# a comment\n"), "pass")
    assert lucky.status == "keep"
    assert [r.number for r in search.ledger.records() if r.event == "demote"] == [lucky.number]


ESCAPES = {
    "memory, by an array interface": """
import numpy as np
class Window:
    def __getattr__(self, name):
        return {"data": (id(self), False), "shape": (64,), "typestr": "|u1", "version": 3}
np.asarray(Window())[0] = 0
""",
    "text that dataclass compiles, by a class made of a dict": """
from dataclasses import dataclass
class A:
    def run(self):
        return 1
def run(text):
    B = dataclass(init=False, repr=False)(type(A)("B", (A,), {"__annotations__": {text: int}}))
    return B() == B()
run("run.__globals__['__builtins__']['open']('x', 'w')")
""",
    "text that dataclass compiles, by an enumeration": """
from dataclasses import dataclass
from enum import Enum
E = dataclass(init=False, repr=False)(Enum("E", {"__annotations__": {"name.__class__": int}, "a": 1}))
E.a == E.a
""",
    "a frame, by a pattern": """
class A:
    pass
T = type(A)
M = T("M", (T,), {"__instancecheck__": lambda cls, x: True})
int = M("int", (), {"__match_args__": ("gi_frame",)})
def frame(g):
    match g:
        case int(found):
            return found
""",
}


@pytest.mark.parametrize("code", ESCAPES.values(), ids=ESCAPES.keys())
def test_what_reads_more_than_its_names_say_is_found(code: str) -> None:
    assert scan(SCHEDULE, code.encode(), None)
