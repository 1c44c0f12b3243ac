"""Whole nights of research on synthetic experiments with known effects and noise: our rule beside the greedy one.

    python benchmarks/decisions.py [--nights 100]

A night is 126 experiments. Half of the candidates change nothing; of the others one in three is better and two in three
are worse, by an exponentially distributed effect. Each row is one world under one rule:

false keeps   of the candidates without any effect, how many were kept
losers kept   candidates that are worse, but were kept: of 126
missed        of the candidates that are better by 1 to 3, and by more than 3 standard deviations of one run
runs          training runs an experiment, the baseline's and the best's own included
progress      true improvement of the last best over the starting point, bits per byte
believed      what the measurements at the end say it is
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from mlx_autoresearch.ledger.noise import Noise
from mlx_autoresearch.ledger.seeds import Seeds
from mlx_autoresearch.research.decision import Discard, Judge, Keep, MoreSeeds
from mlx_autoresearch.research.settings import Decision

EXPERIMENTS = 126
Draw = Callable[[random.Random], float]


@dataclass
class Tally:
    """Counts over many nights."""

    nights: int = 0
    experiments: int = 0
    runs: int = 0
    kept: int = 0
    nulls: int = 0
    false_keeps: int = 0
    losers_kept: int = 0
    small: int = 0
    small_missed: int = 0
    large: int = 0
    large_missed: int = 0
    progress: list[float] = field(default_factory=list)
    believed: list[float] = field(default_factory=list)


def normal(rng: random.Random) -> float:
    """Gaussian noise of standard deviation 1."""
    return rng.gauss(0.0, 1.0)


def heavy(rng: random.Random) -> float:
    """Student's t with 5 degrees of freedom, scaled to standard deviation 1: now and then a run goes badly astray."""
    return rng.gauss(0.0, 1.0) * math.sqrt(3 / rng.gammavariate(2.5, 2.0))


def disturbed(rng: random.Random) -> float:
    """One run in 25 shares the machine with something else, makes half of its steps, and ends far above."""
    return rng.gauss(0.0, 1.0) + (15.0 if rng.random() < 0.04 else 0.0)


def mixed(rng: random.Random, mean: float = 0.02) -> float:
    """True change of val_bpb; negative is better."""
    if rng.random() < 0.5:
        return 0.0
    size = rng.expovariate(1 / mean)
    return -size if rng.random() < 1 / 3 else size


def nothing(rng: random.Random) -> float:
    """No candidate has any effect."""
    return 0.0


@dataclass
class World:
    """sigma: standard deviation of one run; rho: correlation of two configurations' values at one seed; grow: factor
    of sigma with each keep."""

    sigma: float = 0.01
    rho: float = 0.0
    grow: float = 1.0
    draw: Draw = normal
    effect: Draw = mixed


class Night:
    """One chain of experiments, with the loop's rules for when the best is measured."""

    def __init__(self, world: World, rng: random.Random, *, greedy: bool, remeasure_every: int = 20, fresh: int = 2):
        self.world, self.rng, self.greedy = world, rng, greedy
        self.remeasure_every, self.fresh = remeasure_every, fresh
        self.sigma = world.sigma
        self.level = 0.0  # true val_bpb of the best, less the starting point's
        self.runs = 0
        self.window(1 if greedy else 4)
        self.earlier: list[float] = []  # fresh values of this best at the seeds of earlier windows
        self.groups = [self.best]

    def run(self, tally: Tally, experiments: int = EXPERIMENTS) -> None:
        """All experiments of the night, counted in `tally`."""
        start = fmean(self.best)
        since = 0
        for _ in range(experiments):
            if not self.greedy and since >= self.remeasure_every:
                since = 0
                self.earlier += self.best
                self.groups.append(self.window(self.fresh))
            since += 1
            change = self.world.effect(self.rng)
            values, action = self.judged(self.level + change)
            kept = isinstance(action, Keep)
            self.count(tally, change, kept)
            if kept:
                since = 0
                self.level += change
                self.best = values
                self.sigma *= self.world.grow
                if not self.greedy:
                    self.earlier = []
                    self.groups += [values, self.window(self.fresh)]
        tally.nights += 1
        tally.runs += self.runs
        tally.progress.append(-self.level)
        tally.believed.append(start - fmean([*self.best, *self.earlier]))

    def judged(self, level: float) -> tuple[list[float], Keep | Discard]:
        """A candidate's values, seed by seed, and what becomes of it."""
        noise = Noise(self.sigma, 1) if self.greedy else Noise.pooled(self.groups)
        judge = Judge(noise, Seeds().most, **Decision(greedy=self.greedy).model_dump())
        values = self.measure(level, 0)
        while True:
            if len(self.best) < len(values):
                self.best += self.measure(self.level, len(self.best))
            action = judge.next(values, [*self.best, *self.earlier])
            if not isinstance(action, MoreSeeds):
                return values, action
            values += self.measure(level, len(values))

    def window(self, runs: int) -> list[float]:
        """Measure the best at new seeds."""
        self.seeds = [self.world.draw(self.rng) for _ in range(4)]
        self.best = [value for i in range(runs) for value in self.measure(self.level, i)]
        return self.best

    def measure(self, level: float, seed: int) -> list[float]:
        """One run's val_bpb."""
        self.runs += 1
        rho = self.world.rho
        noise = math.sqrt(rho) * self.seeds[seed] + math.sqrt(1 - rho) * self.world.draw(self.rng)
        return [level + self.sigma * noise]

    def count(self, tally: Tally, change: float, kept: bool) -> None:
        """One decided experiment."""
        tally.experiments += 1
        tally.kept += kept
        if change == 0:
            tally.nulls += 1
            tally.false_keeps += kept
        elif change > 0:
            tally.losers_kept += kept
        elif change < -3 * self.sigma:
            tally.large += 1
            tally.large_missed += not kept
        elif change < -self.sigma:
            tally.small += 1
            tally.small_missed += not kept


def simulate(world: World, nights: int, *, greedy: bool = False, seed: int = 0, **loop: Any) -> Tally:
    """Many nights in one world under one rule."""
    tally = Tally()
    for night in range(nights):
        Night(world, random.Random(f"{seed} {night}"), greedy=greedy, **loop).run(tally)
    return tally


WORLDS = {
    "sigma 0.005": World(sigma=0.005),
    "sigma 0.01": World(),
    "sigma 0.02": World(sigma=0.02),
    "sigma 0.03": World(sigma=0.03),
    "seeds correlate by 0.5": World(rho=0.5),
    "heavy tails": World(draw=heavy),
    "disturbed runs": World(draw=disturbed),
    "noise falls with keeps": World(grow=0.95),
    "noise rises with keeps": World(grow=1.05),
    "nothing ever helps": World(effect=nothing),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=100)
    nights = parser.parse_args().nights
    print(f"{nights} nights of {EXPERIMENTS} experiments; effects have a mean size of 0.02 bits per byte")
    print(
        f"{'world':<23} {'rule':<7} {'false keeps':>11} {'losers kept':>11} {'missed 1-3':>10} {'>3':>5} {'kept':>6} "
        f"{'runs':>5} {'progress':>9} {'believed':>9}"
    )
    for name, world in WORLDS.items():
        for rule in ("ours", "greedy"):
            t = simulate(world, nights, greedy=rule == "greedy")
            small = f"{t.small_missed / t.small:.0%}" if t.small else "-"
            large = f"{t.large_missed / t.large:.0%}" if t.large else "-"
            print(
                f"{name:<23} {rule:<7} {t.false_keeps / t.nulls:>11.1%} {t.losers_kept / t.nights:>11.1f} {small:>10} "
                f"{large:>5} {t.kept / t.nights:>6.1f} {t.runs / t.experiments:>5.2f} {fmean(t.progress):>9.4f} "
                f"{fmean(t.believed):>9.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
