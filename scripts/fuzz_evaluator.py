"""Hostile logits for the evaluator, for some minutes, beside the same arithmetic in float64.

    python scripts/fuzz_evaluator.py --minutes 60 --seed 1

A case is drawn from (seed, number) alone: a vocabulary of 2 to 70,000 tokens, a dtype, a layout in memory, and logits
that try to break the arithmetic. The evaluator must return what float64 says, or refuse what must be refused, and
nothing else. Prints counts, refusals by reason and the worst error; exits with 1 at the first wrong figure, with the
command that repeats it.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import mlx_autoresearch  # noqa: F401  before anything imports mlx.core

import mlx.core as mx  # isort: skip
import numpy as np

from mlx_autoresearch.errors import MetricRefused
from mlx_autoresearch.metric.bits import evaluate_bpb

LARGEST = 0.01 / float(np.finfo(np.float32).eps)  # logits above are refused
# Allowed error of a token's nats: the exponential's; of the differences, relative; and that of adding float32 terms.
EXPONENTIAL, RELATIVE = 2e-5, 1e-6
DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
_ELEMENTS = 400_000  # of a case's logits, at most
_LONGEST_ROW, _MOST_ROWS = 24, 4

Kind = Callable[[np.random.Generator, int, int], np.ndarray]


def _signed(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.choice([-1.0, 1.0]) * 10.0 ** rng.uniform(low, high))


def _normal(rng: np.random.Generator, n: int, V: int) -> np.ndarray:
    return rng.standard_normal((n, V)) * 10.0 ** rng.uniform(-8, 6)


def _usual(rng: np.random.Generator, n: int, V: int) -> np.ndarray:
    return rng.standard_normal((n, V)) * rng.uniform(0.5, 5) + rng.uniform(-20, 20)


def _shifted(rng: np.random.Generator, n: int, V: int) -> np.ndarray:
    return _normal(rng, n, V) + _signed(rng, 0, 9)


def _constant(rng: np.random.Generator, n: int, V: int) -> np.ndarray:
    return np.full((n, V), _signed(rng, -45, 38))


def _denormal(rng: np.random.Generator, n: int, V: int) -> np.ndarray:
    return rng.standard_normal((n, V)) * 10.0 ** rng.uniform(-46, -30)


def _giant(rng: np.random.Generator, n: int, V: int) -> np.ndarray:
    return rng.standard_normal((n, V)) * 10.0 ** rng.uniform(4.5, 38.3)


def _one_hot(rng: np.random.Generator, n: int, V: int) -> np.ndarray:
    logits = np.full((n, V), rng.choice([0.0, -1.0, 5.0]))
    logits[np.arange(n), rng.integers(V, size=n)] += _signed(rng, -3, 5)
    return logits


def _masked(rng: np.random.Generator, n: int, V: int) -> np.ndarray:
    logits = _usual(rng, n, V)
    logits[:, rng.random(V) < rng.random()] = rng.choice([-1e5, -1e30, -3e38, -np.inf])
    return logits


def _border(rng: np.random.Generator, n: int, V: int) -> np.ndarray:
    top = np.float32(LARGEST)
    for _ in range(rng.integers(4)):
        top = np.nextafter(top, np.float32(rng.choice([0.0, 1e9])))
    logits = float(top) - np.abs(_usual(rng, n, V))
    logits[:, rng.integers(V)] = float(top)
    return logits * rng.choice([-1.0, 1.0])


def _cancelling(rng: np.random.Generator, n: int, V: int) -> np.ndarray:
    """A large number and a few of its last bits."""
    base = np.float32(10.0 ** rng.uniform(0, 4.9))
    return (base + rng.integers(0, 5, (n, V)) * np.spacing(base)).astype(np.float64)


def _small_terms(rng: np.random.Generator, n: int, V: int) -> np.ndarray:
    """One large term, and many that are each too small to change it: their sum is not."""
    logits = np.full((n, V), rng.uniform(-19, -12)) + rng.standard_normal((n, V)) * rng.choice([0.0, 0.1])
    logits[np.arange(n), rng.integers(V, size=n) * rng.integers(2)] = 0
    return logits + rng.uniform(-100, 100)


def _ramp(rng: np.random.Generator, n: int, V: int) -> np.ndarray:
    return np.tile(np.linspace(0, _signed(rng, -3, 6), V), (n, 1))


def _two_levels(rng: np.random.Generator, n: int, V: int) -> np.ndarray:
    return np.where(rng.random((n, V)) < rng.random(), 0.0, _signed(rng, -2, 5))


def _no_number(rng: np.random.Generator, n: int, V: int) -> np.ndarray:
    logits = _usual(rng, n, V)
    logits[rng.integers(n), rng.integers(V)] = rng.choice([np.nan, np.inf, -np.inf])
    return logits


KINDS: tuple[Kind, ...] = (
    *(_normal, _usual, _shifted, _constant, _denormal, _giant, _one_hot, _masked, _border),
    *(_cancelling, _small_terms, _ramp, _two_levels, _no_number),
)


def _strided(logits: mx.array) -> mx.array:
    return mx.repeat(logits, 2, axis=-1)[:, ::2]


def _flipped(logits: mx.array) -> mx.array:
    return mx.contiguous(logits[:, ::-1])[:, ::-1]


def _transposed(logits: mx.array) -> mx.array:
    return mx.contiguous(logits.T).T


def _repeated(logits: mx.array) -> mx.array:
    """The first position's for all, without a copy."""
    return mx.broadcast_to(logits[:1], logits.shape)


Layout = Callable[[mx.array], mx.array]
LAYOUTS: tuple[Layout, ...] = (mx.contiguous, _strided, _flipped, _transposed, _repeated)
WRONG: dict[str, Layout] = {
    "one token more": lambda logits: mx.pad(logits, [(0, 0), (0, 1)]),
    "one token less": lambda logits: logits[:, :-1],
    "one position less": lambda logits: logits[:-1],
    "one position more": lambda logits: mx.pad(logits, [(0, 1), (0, 0)]),
    "one dimension more": lambda logits: logits[None],
    "flat": lambda logits: logits.reshape(-1),
}


@dataclass(frozen=True)
class Case:
    """A causal model that answers with the rows of a table (n, V), and rows of text (B, T + 1) to score it on.

    The token and its place decide which row of the table.
    """

    name: str
    table: mx.array
    text: np.ndarray
    layout: Layout
    wrong: str | None

    def hidden(self, idx: mx.array) -> mx.array:
        which = mx.array(self._which(np.array(idx)))
        return mx.take(mx.eye(len(self.table)), which, axis=0).astype(self.table.dtype)

    def logits(self, hidden: mx.array) -> mx.array:
        logits = self.layout(mx.take(self.table, hidden.argmax(axis=-1), axis=0))
        return WRONG[self.wrong](logits) if self.wrong else logits

    def nats(self) -> float:
        """What the evaluator says. Raises MetricRefused."""
        rows, V = len(self.text), self.table.shape[1]
        offsets = np.arange(rows + 1) * self.text.shape[1]
        T = self.text.shape[1] - 1
        return evaluate_bpb(
            self, self.text.ravel(), offsets, np.ones(V, np.int32), eval_tokens=rows * T, sequence_len=T
        ).nats

    def worth(self) -> tuple[np.ndarray, float]:
        """Nats of every target in float64, of the logits as their dtype has them, and the largest of all tops."""
        table = np.array(self.table.astype(mx.float32)).astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            top = table.max(axis=-1, keepdims=True)
            below = table - top
            total = np.log(np.exp(below).sum(axis=-1))
        which, labels = self._which(self.text[:, :-1]), self.text[:, 1:]
        return total[which] - below[which, labels], float(np.abs(top[which]).max())

    def _which(self, idx: np.ndarray) -> np.ndarray:
        if self.layout is _repeated:
            return np.zeros_like(idx)
        return (np.arange(idx.shape[1]) * 7 + idx) % len(self.table)


def make_case(seed: int, number: int) -> Case:
    """The case of this number."""
    rng = np.random.default_rng([seed, number])
    V = int(2 ** rng.uniform(1, np.log2(70_001)))
    V = int(rng.choice([V, V, 2, 3, 256, 32_768, 65_536, 70_000]))
    T = int(rng.integers(1, max(2, min(_LONGEST_ROW, _ELEMENTS // V) + 1)))
    B = int(rng.integers(1, max(2, min(_MOST_ROWS, _ELEMENTS // (V * T)) + 1)))
    n = int(rng.integers(1, min(8, max(2, _ELEMENTS // V)) + 1))
    kind = KINDS[rng.integers(len(KINDS))]
    dtype = str(rng.choice(list(DTYPES)))
    layout = LAYOUTS[rng.integers(len(LAYOUTS))]
    wrong = str(rng.choice(list(WRONG))) if rng.random() < 0.05 else None
    text = rng.integers(V, size=(B, T + 1))
    with np.errstate(over="ignore", invalid="ignore"):
        logits = kind(rng, n, V).astype(np.float32)
        if rng.random() < 0.2:  # a model that knows some of the answers
            logits[:, text[rng.integers(B), 1:]] += np.float32(10.0 ** rng.uniform(-3, 5))
    name = f"{kind.__name__[1:]} {dtype} {layout.__name__.lstrip('_')} V={V} T={T} B={B}"
    return Case(name, mx.array(logits).astype(DTYPES[dtype]), text.astype(np.int32), layout, wrong)


@dataclass
class Tally:
    """What has been found so far. worst: nats a token."""

    scored: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    worst: float = 0.0
    worst_case: str = ""

    def judge(self, case: Case) -> str | None:
        """Score a case, and count it; what is wrong with the figure, or None."""
        try:
            found, refusal = case.nats(), ""
        except MetricRefused as error:
            found, refusal = None, re.split(r"[(;:,]", str(error))[0].strip()
        except Exception as error:
            return f"raised {type(error).__name__}: {error}"
        if case.wrong:
            if found is not None:
                return f"scored logits of a wrong shape ({case.wrong})"
            self.refused[refusal] += 1
            return None
        worth, top = case.worth()
        float32_holds = bool(np.isfinite(worth).all() and np.abs(worth).max() < np.finfo(np.float32).max)
        if found is None:
            self.refused[refusal] += 1
            unfit = top > LARGEST or not float32_holds or not _finite(case.table)
            return None if unfit else f"refused what can be scored: {refusal}"
        if top > LARGEST or not float32_holds:
            return f"scored what must be refused: largest logit {top:.6g}, nats {worth.max():.6g}"
        error = abs(found - worth.sum())
        if not error <= (EXPONENTIAL + _adding(case.table.shape[1])) * worth.size + RELATIVE * worth.sum():
            return f"{found!r} nats where float64 says {worth.sum()!r}"
        if found < 0:
            return f"{found!r} nats: less than nothing"
        self.scored += 1
        if error / worth.size > self.worst + RELATIVE * float(worth.mean()):
            self.worst, self.worst_case = error / worth.size, case.name
        return None

    def __str__(self) -> str:
        refused = ", ".join(f"{count:,} {reason!r}" for reason, count in self.refused.most_common())
        return (
            f"{self.scored:,} scored, worst error {self.worst:.2e} nats a token ({self.worst_case}); "
            f"{self.refused.total():,} refused: {refused or 'none'}"
        )


def _adding(V: int) -> float:
    """Relative error of V float32 terms that are added 128 at a time, and then those sums."""
    return (128 + V / 128) * float(np.finfo(np.float32).eps) / 2


def _finite(table: mx.array) -> bool:
    return bool(mx.isfinite(table.astype(mx.float32)).all().item())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="this one only")
    given = parser.parse_args()
    mx.set_cache_limit(2**28)
    tally, until = Tally(), time.monotonic() + 60 * given.minutes
    number = given.case or 0
    while True:
        if wrong := tally.judge(case := make_case(given.seed, number)):
            print(f"{case.name}: {wrong}\nrepeat with: {sys.argv[0]} --seed {given.seed} --case {number}")
            return 1
        number += 1
        if given.case is not None or time.monotonic() >= until:
            break
        if number % 5000 == 0:
            print(f"{number:,} cases: {tally}", flush=True)
    print(f"seed {given.seed}: {tally}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
