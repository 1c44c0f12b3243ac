"""Keep or discard: a sequential test of a candidate against the current best, which accounts for run-to-run noise.

A trial's val_bpb is its configuration's true value plus noise of standard deviation sigma. The noise comes from the
initialisation, and from how many steps the machine managed in the time budget. With n trials of the candidate and m of
the best, at the same seeds as far as possible, the difference of the means has the standard error
sigma * sqrt(1/n + 1/m).

- Sigma is estimated from repeated trials of recent bests (ledger/noise.py). Student's t accounts for their number.
- There is a look after every seed of the candidate, `max_seeds` at most. Each look has the level at which all of them
  together keep a candidate without effect with probability `false_keep_rate` (Pocock 1977).
- A candidate is discarded at once if one standard error of luck would still leave it below the final threshold.
- The measurements that made a candidate the best are too good on average (the winner's curse). The search therefore
  measures a new best afresh, at new seeds, again every so often, and compares with the fresh values alone. While they
  are missing, a keep is harder, never easier.
- If something else takes the machine during a trial, the trial makes fewer steps. It is then worse, never better, and
  no sample of the noise. Trials of a best that are far above its others are left out, which makes a keep harder too.
  Trials of a candidate are not left out: that it fails now and then is a property of it.

Only numbers come in and go out: no files, no clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist, fmean

import numpy as np

from mlx_autoresearch.ledger.noise import Noise, undisturbed

_LUCK = 1.0  # standard errors by which luck may still improve a candidate's estimate


@dataclass(frozen=True)
class Keep:
    """The candidate becomes the best.

    margin: 0 where it has gained; for one that is equal and simpler, how much worse still counts as equal.
    """

    reason: str
    margin: float = 0.0


@dataclass(frozen=True)
class Discard:
    """The best stays."""

    reason: str


@dataclass(frozen=True)
class MoreSeeds:
    """Undecided: train the candidate with `n` more seeds, and the best where it lacks them."""

    n: int


Action = Keep | Discard | MoreSeeds


@dataclass(frozen=True)
class Judge:
    """Decides on one candidate at a time.

    noise: of one trial. max_seeds: trials of a candidate, at most. The rest is what a search's section `decision` says.
    false_keep_rate: largest probability that a candidate without any effect is kept, all looks together.
    equivalence: a simpler candidate that is worse by this many standard deviations of one trial is kept with
    probability `false_keep_rate` at most.
    greedy: the reference's rule instead: one seed, any improvement is kept.
    """

    noise: Noise
    max_seeds: int
    false_keep_rate: float
    equivalence: float
    greedy: bool

    def next(self, candidate: Sequence[float], best: Sequence[float], simpler: bool = False) -> Action:
        """What to do after a trial: candidate[i] and best[i] are val_bpb at the i-th seed, lower is better.

        best: fresh measurements, at the candidate's seeds and possibly further ones; all but disturbed ones are used.
        simpler: the candidate has less code. Raises ValueError for no values, fewer of the best, or non-finite ones.
        """
        n, m = len(candidate), len(best)
        if not 1 <= n <= m:
            raise ValueError(f"[Judge.next] expected one candidate value or more and as many of the best, got {n}, {m}")
        if not all(map(math.isfinite, [*candidate, *best])):
            raise ValueError(f"[Judge.next] expected finite val_bpb, got {[*candidate, *best]}")
        if self.greedy:
            return self._greedy(candidate[0] - best[0], simpler)

        best = undisturbed(best, self.noise.sd)
        m = len(best)
        gain = fmean(best) - fmean(candidate)
        noise = self.threshold(n, m)
        seeds = f"{n} seed{'s' if n > 1 else ''}"
        found = f"{abs(gain):.4f} {'better' if gain > 0 else 'worse'} over {seeds}"
        if gain > noise:
            return Keep(f"{found}; more than the noise threshold {noise:.4f}")

        last = n >= self.max_seeds
        final = max(m, self.max_seeds)
        goal = self.threshold(self.max_seeds, final)  # gain that the last look asks for
        if simpler:
            goal = min(goal, self._least_equal(self.max_seeds, final))
            if last and gain >= goal:
                return Keep(f"{found}, which is equal within {self.margin:.4f}, and simpler", self.margin)
        if last:
            return Discard(found + (f"; less than the noise threshold {noise:.4f}" if gain > 0 else ""))
        if gain + _LUCK * self._error(n, m) < goal:
            return Discard(f"{found}; more seeds are unlikely to reach the required {max(goal, 0.0):.4f}")
        return MoreSeeds(1)

    @property
    def margin(self) -> float:
        """How much worse still counts as equal, bits per byte."""
        return self.equivalence * self.noise.sd

    def is_equal(self, candidate: Sequence[float], other: Sequence[float]) -> bool:
        """Whether a candidate is shown not to be worse than another one by the margin: one look, at any seeds."""
        if self.greedy:
            return candidate[0] <= other[0]
        other = undisturbed(other, self.noise.sd)
        return fmean(other) - fmean(candidate) >= self._least_equal(len(candidate), len(other))

    def doubts(self, best: Sequence[float], before: Sequence[float], margin: float) -> bool:
        """Whether fresh values of the best leave it open that it is no better than the one before it.

        margin: of a best that was kept as equal and simpler, else 0. One standard error is asked for: if nothing was
        gained, five of six times there is doubt.
        """
        best, before = undisturbed(best, self.noise.sd), undisturbed(before, self.noise.sd)
        return fmean(before) - fmean(best) + margin < _LUCK * self._error(len(best), len(before))

    def threshold(self, n: int, m: int) -> float:
        """The largest improvement of means that one look takes for noise: n trials of the candidate, m of the best."""
        return t_quantile(1 - pocock_level(self.false_keep_rate, self.max_seeds), self.noise.df) * self._error(n, m)

    def _least_equal(self, n: int, m: int) -> float:
        """The smallest gain, in general negative, that shows a candidate not to be worse by the margin."""
        return t_quantile(1 - self.false_keep_rate, self.noise.df) * self._error(n, m) - self.margin

    def _error(self, n: int, m: int) -> float:
        return self.noise.sd * math.sqrt(1 / n + 1 / m)

    def _greedy(self, difference: float, simpler: bool) -> Action:
        found = f"{abs(difference):.4f} {'worse' if difference > 0 else 'better'} at one seed"
        return Keep(found) if difference < 0 or (simpler and difference == 0) else Discard(found)


@lru_cache
def pocock_level(rate: float, looks: int) -> float:
    """Level of each of `looks` equally spaced looks, the same for all, at which they err with probability `rate`.

    Pocock, Group sequential methods in the design and analysis of clinical trials, Biometrika 64 (1977), one-sided.
    Looks that share more data, as where the best has more seeds than the candidate, and an estimated sigma with
    Student's t only err less often.
    """
    low, high = rate / looks, rate
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if _crossing(-NormalDist().inv_cdf(middle), looks) > rate else (middle, high)
    return low


def _crossing(z: float, looks: int) -> float:
    """P(a standard normal random walk S exceeds z * sqrt(k) at a step k <= looks), by integration step by step."""
    at, density = np.zeros(1), np.ones(1)  # of the walks that have not crossed
    for k in range(1, looks + 1):
        to = np.linspace(-8 * math.sqrt(k), z * math.sqrt(k), 257)
        density = np.exp(-((to[:, None] - at) ** 2) / 2) @ density / math.sqrt(2 * math.pi)  # (257,)
        weights = np.full(to.size, to[1] - to[0])
        weights[[0, -1]] /= 2
        at, density = to, density * weights
    return 1 - float(density.sum())


@lru_cache
def t_quantile(p: float, df: int) -> float:
    """Quantile of Student's t with whole `df` >= 1, 0.5 <= p < 1: `t_cdf` inverted by bisection to 1e-10."""
    low, high = 0.0, 1.0
    while t_cdf(high, df) < p:
        high *= 2
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, df) < p else (low, middle)
    return high


def t_cdf(t: float, df: int) -> float:
    """P(T <= t) of Student's t with whole `df` >= 1, in closed form (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(df))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = df % 2
    term = cosine if odd else 1.0
    total = term if df > 1 else 0.0
    for k in range(2 if odd else 1, df - 1, 2):
        term *= k / (k + 1) * cosine * cosine
        total += term
    within = 2 / math.pi * (angle + sine * total) if odd else sine * total  # P(|T| <= t), with the sign of t
    return 0.5 + within / 2
