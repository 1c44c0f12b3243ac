"""Whole nights of a search on a simulated machine that is busy at times: what is kept, and what that costs in runs.

    python scripts/simulate_nights.py [--nights 500] [--experiments 120]

The decisions are the package's own: Experiment, Champion, Judge, runs in turns, confirmation, the ledger's records.
Simulated are git, the training and the scoring. Nothing is trained, so a night takes a second.

A run's val_bpb is the configuration's true value, plus noise of the seed (standard deviation 1 here: the unit of all
effects), plus what the validation text deviates for this change, minus 20 times the logarithm of the machine's speed.
Something else takes 10 to 50% of the machine for 15 runs on average, every 60 runs or so. Of the ideas half change
nothing, 3 in 10 are worse, 3 in 20 are better by 0.2 to 3, and 1 in 20 has the answers of the validation text: better
there by 1 to 50, and no better anywhere else. Half of the ideas alter what a step costs, by up to 30% either way; their
effect is what remains of them on a machine of even speed.

Both rules see the same ideas, with and without the confirmation, the runs in turns and the demotions:

kept <= 0     share that was kept of the ideas whose true effect is zero or worse; of them the cheats
kept better   share that was kept of the better ones, by size
demoted       keeps that a later measurement took back, by night: truly worthless ones, and truly better ones
runs          training runs an experiment, with those of the baseline and the best
progress      true improvement at the end of the night
"""

from __future__ import annotations

import argparse
import math
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.ledger.ledger import Ledger, Record, Trial
from mlx_autoresearch.machine.disk import Disks
from mlx_autoresearch.metric.bits import DocumentBits
from mlx_autoresearch.research.candidate import Candidate
from mlx_autoresearch.research.champion import Champion
from mlx_autoresearch.research.experiment import EXPERIMENT, Experiment
from mlx_autoresearch.research.home import Search
from mlx_autoresearch.research.proposers.base import Context, Proposal
from mlx_autoresearch.research.settings import SearchConfig
from mlx_autoresearch.research.view import View
from mlx_autoresearch.research.workspace import Change
from mlx_autoresearch.training.files import CHECKPOINT

_SIGMA = 0.01  # bits per byte
_PER_SPEED = 0.2  # bits per byte that a run ends worse, for each time that its steps fall by the factor e
_STEPS = 150
_TEXT = 0.25  # standard deviation of what the validation text deviates for one change
_PIECES, _DOCUMENTS, _BYTES, _SCATTER = 24, 128, 1000, 0.03  # of the confirmation text; scatter of one document
_CHANGE = Change({EXPERIMENT: "M"}, 1, 1)
_BINS = ((0.2, 1.0), (1.0, 2.0), (2.0, 3.0))


@dataclass(frozen=True)
class Idea:
    """effect: true change, negative is better. cheat: further change on the validation text. cost: of a step."""

    effect: float
    cheat: float = 0.0
    cost: float = 1.0

    @classmethod
    def drawn(cls, rng: random.Random) -> Idea:
        kind = rng.random()
        cost = math.exp(rng.uniform(-0.3, 0.3)) if rng.random() < 0.5 else 1.0
        if kind < 0.05:
            return cls(rng.choice([0.0, 1.0]), -rng.choice([1.0, 3.0, 10.0, 50.0]), cost)
        if kind < 0.55:
            return cls(0.0, cost=cost)
        if kind < 0.85:
            return cls(rng.expovariate(0.5), cost=cost)
        return cls(-rng.uniform(0.2, 3.0), cost=cost)


@dataclass
class Model:
    """What is true of a configuration: on all text, and further on the validation text; the cost of its steps."""

    level: float = 0.0
    on_val: float = 0.0
    cost: float = 1.0


@dataclass
class Tally:
    """Counts over nights; by bin for better ideas, "null" and "cheat" for the others."""

    tried: Counter[Any] = field(default_factory=Counter)
    kept: Counter[Any] = field(default_factory=Counter)
    demoted: Counter[Any] = field(default_factory=Counter)
    runs: int = 0
    experiments: int = 0
    progress: list[float] = field(default_factory=list)

    def worthless(self) -> float:
        """Share of the ideas without a true gain that was kept."""
        return (self.kept["null"] + self.kept["cheat"]) / max(1, self.tried["null"] + self.tried["cheat"])

    def share(self, kind: Any) -> float:
        return self.kept[kind] / max(1, self.tried[kind])


def kind_of(idea: Idea) -> Any:
    if idea.cheat:
        return "cheat"
    return "null" if idea.effect >= 0 else next((b for b in _BINS if b[0] <= -idea.effect < b[1]), _BINS[-1])


class Memory(Ledger):
    """A ledger that is in no file."""

    def __init__(self) -> None:
        super().__init__("ledger.jsonl")
        self._records = []

    def append(self, record: Record) -> None:
        self._records = [*self.records(), record]


class Git:
    """In the place of a Workspace: the branch alone."""

    path = Path("worktree")

    def __init__(self) -> None:
        self.best = "start"

    def keep(self, commit: str) -> None:
        self.best = commit

    def has_less_code(self, *_: object) -> bool:
        return False

    def diff(self, *_: object) -> str:
        return ""


class Quiet(View):
    """Shows nothing."""

    def say(self, line: str) -> None: ...


class Machine:
    """Trains at the speed that something else leaves it, and scores."""

    def __init__(self, seed: str):
        self.rng = random.Random(f"machine {seed}")
        self.models: dict[float, Model] = {}  # by matrix_lr, which stands for a configuration
        self.runs: dict[str, float] = {}  # val_bpb on other text, by run folder
        self.noise: dict[int, float] = {}
        self.busy, self.speed = False, 1.0

    def train(self, config: Config, *, seed: int, folder: Path, **_: object) -> Trial:
        rng, model = self.rng, self.models[config.optimizer.matrix_lr]
        if rng.random() < (1 / 15 if self.busy else 1 / 60):
            self.busy = not self.busy
            self.speed = rng.uniform(0.5, 0.9) if self.busy else 1.0
        speed = self.speed * math.exp(rng.gauss(0, 0.01))
        elsewhere = 2.0 + _SIGMA * (model.level + rng.gauss(0, 1)) - _PER_SPEED * math.log(speed)
        folder.mkdir(parents=True)
        (folder / CHECKPOINT).touch()
        self.runs[folder.name + folder.parent.name] = elsewhere
        steps = round(_STEPS * speed / model.cost)
        return Trial(seed, elsewhere + _SIGMA * model.on_val, steps, 8192 * steps, 60.0, 70.0, 1000.0, 7.0, str(folder))

    def confirm(self, run: Path, *_: object, documents: np.ndarray, **__: object) -> DocumentBits:
        scatter = np.random.default_rng(self.rng.getrandbits(32)).normal(0, _SCATTER, len(documents))
        sizes = np.full(len(documents), _BYTES)
        return DocumentBits((self.runs[run.name + run.parent.name] + scatter) * sizes * math.log(2), sizes)


class Simulated(Search):
    """A search without a repository; its files are in `home`."""

    def __init__(self, home: Path, machine: Machine):
        proposer = {"kind": "script", "steps": [{"hypothesis": "an idea", "overrides": {"model.mlp": "gelu"}}]}
        self.config = SearchConfig.model_validate({"tag": "simulated", "proposer": proposer})
        self.home, self.ledger, self.mark = home, Memory(), "simulated"
        self.workspace: Any = Git()
        self.run_trial, self.confirm = machine.train, machine.confirm
        self.untrusted_code_ran, self.waited_seconds, self.disturbed = False, 0.0, 0
        self.disks = Disks({})
        self.candidates = {"start": _candidate("start", 0.0)}
        machine.models[0.0] = Model()


class Ideas:
    """A proposer of random ideas; `last` is the latest."""

    name, trusted = "ideas", True

    def __init__(self, seed: str):
        self.rng = random.Random(f"ideas {seed}")
        self.last = Idea(0.0)

    def propose(self, context: Context) -> Proposal:
        self.last = Idea.drawn(self.rng)
        return Proposal("an idea", "other")

    def told(self, record: Record) -> None: ...


class Tried(Experiment):
    """An experiment whose change is an idea on top of the best, without files."""

    def __init__(self, search: Simulated, champion: Champion, ideas: Ideas, machine: Machine):
        super().__init__(search, champion, ideas, Quiet())
        self._simulated, self._ideas, self._machine = search, ideas, machine

    def _commit_proposal(self, proposal: Proposal) -> Any:
        best = self._machine.models[self._champion.candidate.config.optimizer.matrix_lr]
        idea, key = self._ideas.last, self._number / 1000
        on_val = best.on_val + idea.cheat + self._ideas.rng.gauss(0, _TEXT)
        self._machine.models[key] = Model(best.level + idea.effect, on_val, best.cost * idea.cost)
        self._commit, self._change = f"{self._number}", _CHANGE
        self._simulated.candidates[self._commit] = _candidate(self._commit, key)
        return []

    def _check(self) -> Candidate:
        self._overrides = {"optimizer.matrix_lr": self._number}
        if self._ideas.last.cost != 1:
            self._overrides["model.mlp"] = "another"
        return self._simulated.candidates[self._commit]

    def _write(self, name: str, text: str) -> None: ...


def _candidate(commit: str, key: float) -> Candidate:
    return Candidate(commit, _CHANGE, _CONFIG.model_copy(update={"optimizer": _rate(key)}), "installed")


def _rate(key: float) -> Any:
    return _CONFIG.optimizer.model_copy(update={"matrix_lr": key})


_CONFIG = Config()


@contextmanager
def simulated(*, before: bool) -> Iterator[None]:
    """Cut the decisions off from git and data. before: take out what the stricter rules have added."""
    research = "mlx_autoresearch.research"
    text = [np.arange(i * _DOCUMENTS, (i + 1) * _DOCUMENTS) for i in range(_PIECES)]
    replaced: dict[str, Any] = {
        f"{research}.champion.candidate_at": lambda search, commit: search.candidates[commit],
        f"{research}.measure.installed_code_hash": lambda: "installed",
        f"{research}.guard.integrity.trusted_state": lambda config: {},
        f"{research}.confirmation.find_data": lambda config: None,
        f"{research}.confirmation.pieces": lambda data, tokens: [] if before else text,
    }
    if before:
        replaced[f"{research}.champion.Champion._fall_back_where_exposed"] = lambda self: None
        replaced[f"{research}.comparison.Comparison._may_be_the_machines"] = lambda self: False
    with ExitStack() as stack:
        for name, value in replaced.items():
            stack.enter_context(patch(name, value))
        yield


def night(seed: str, experiments: int, tally: Tally) -> None:
    """One search of so many experiments, counted in `tally`."""
    with TemporaryDirectory() as home:
        machine = Machine(seed)
        search, ideas = Simulated(Path(home), machine), Ideas(seed)
        champion = Champion(search, Quiet())
        champion.measure_baseline()
        kinds = {}
        for _ in range(experiments):
            champion.refresh()
            record = Tried(search, champion, ideas, machine).conduct({})
            assert record is not None
            kinds[record.number] = kind = kind_of(ideas.last)
            tally.tried[kind] += 1
            tally.kept[kind] += record.status == "keep"
        records = search.ledger.records()
        for record in records:
            if record.event == "demote":
                tally.demoted[kinds[record.number]] += 1
        tally.experiments += experiments
        tally.runs += sum(len(r.trials) for r in records)
        tally.progress.append(-machine.models[champion.candidate.config.optimizer.matrix_lr].level)


def simulate(nights: int, experiments: int, *, before: bool, seed: int = 0) -> Tally:
    """Many nights under the rules of now, or those before."""
    tally = Tally()
    with simulated(before=before):
        for number in range(nights):
            night(f"{seed} {number}", experiments, tally)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=500)
    parser.add_argument("--experiments", type=int, default=120)
    given = parser.parse_args()
    print(f"{given.nights} nights of {given.experiments} experiments; effects in standard deviations of one run")
    sizes = "".join(f"{f'{low:g} to {high:g}':>10}" for low, high in _BINS)
    print(f"{'rules':<8}{'kept <= 0':>10}{'cheats':>8}  kept better{sizes}{'demoted':>14}{'runs':>6}{'progress':>10}")
    for rules in ("before", "now"):
        tally = simulate(given.nights, given.experiments, before=rules == "before")
        bad = (tally.demoted["null"] + tally.demoted["cheat"]) / given.nights
        good = sum(tally.demoted[b] for b in _BINS) / given.nights
        shares = "".join(f"{tally.share(b):>10.1%}" for b in _BINS)
        print(
            f"{rules:<8}{tally.worthless():>10.2%}{tally.share('cheat'):>8.1%}             {shares}"
            f"{f'{bad:.2f} / {good:.2f}':>14}{tally.runs / tally.experiments:>6.2f}{fmean(tally.progress):>10.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
