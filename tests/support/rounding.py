"""Budgets for float32 results: three times as far as rounding moves them on the machine that runs the test.

The same function is evaluated again with every input moved by one unit in the last place, up or down at random. What
that moves a result by is the error to expect of another order of summation, another BLAS or another processor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import mlx.core as mx
import numpy as np

from tests.support.arrays import relative_error

DRAWS = 6
FACTOR = 3
FLOOR = 1e-6  # eight units in the last place, for results whose few numbers may all happen to be rounded alike
VISIBLE = 1e-3  # were most budgets above this, they would hide faults of a per mille, and the test prove little

Arrays = Mapping[str, Any]


def nudged(x: Any, seed: int) -> mx.array:
    """x with every element moved to the float32 number above or below it, at random; zeros stay zeros."""
    x = np.array(x, np.float32)
    up = np.random.default_rng(seed).integers(0, 2, x.shape).astype(bool)
    return mx.array(np.where(x == 0, x, np.nextafter(x, np.where(up, np.inf, -np.inf).astype(np.float32))))


def rounding(f: Callable[[dict[str, mx.array]], Arrays], inputs: Arrays) -> dict[str, float]:
    """Relative errors to expect of the results of `f`: the largest of DRAWS evaluations with nudged inputs."""
    ours = {name: np.array(a) for name, a in f({name: mx.array(x) for name, x in inputs.items()}).items()}
    others = (
        f({name: nudged(x, DRAWS * i + draw) for i, (name, x) in enumerate(inputs.items())}) for draw in range(DRAWS)
    )
    return spread(ours, others)


def spread(ours: Arrays, others: Iterable[Arrays]) -> dict[str, float]:
    """The largest relative distance of the other results from ours, for each name."""
    largest = dict.fromkeys(ours, 0.0)
    for other in others:
        for name, a in ours.items():
            largest[name] = max(largest[name], relative_error(other[name], a))
    return largest


def check_within(got: Arrays, expected: Arrays, expected_error: Mapping[str, float]) -> None:
    """Each of `got` is as near to `expected` as FACTOR times its expected error and FLOOR allow."""
    assert got.keys() == expected.keys()
    budgets = {name: FACTOR * expected_error[name] + FLOOR for name in expected}
    assert np.median(list(budgets.values())) < VISIBLE, f"rounding would hide faults: {budgets}"
    errors = {name: relative_error(got[name], expected[name]) for name in expected}
    beyond = {name: (e, budgets[name]) for name, e in errors.items() if not e <= budgets[name]}
    assert not beyond, f"(error, budget): {beyond}"
