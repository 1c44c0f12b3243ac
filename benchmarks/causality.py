"""How surely one run's scoring finds a model that looks ahead, and what the check costs and says of an honest model.

    python benchmarks/causality.py RUNS [CONFIG.yaml] [section.key=value ...]

The first table is simulated with the cuts that scoring draws: RUNS runs for every kind of looking ahead. An entry is
the share of runs that are refused. "nudge" gains the true token so much at every position, in a process whose rounding
hides single differences of that size (bfloat16). The rest scores and checks the configuration's model, as it is
initialised, on its prepared validation text.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import mlx_autoresearch  # noqa: F401  before anything imports mlx.core

import mlx.core as mx  # isort: skip
import numpy as np

from mlx_autoresearch.config.load import load_config, split_settings
from mlx_autoresearch.metric.bits import Scored, token_nats
from mlx_autoresearch.metric.causality import altered, check_scored, draw_cuts, favours_the_truth
from mlx_autoresearch.metric.score import score
from mlx_autoresearch.training.data import open_data
from mlx_autoresearch.training.setup import compute_dtype, make_model

LENGTH = 512
Where = Callable[[np.random.Generator, int], np.ndarray]  # (rows, LENGTH) bool: where the model looks ahead


def last(K: int) -> Where:
    return lambda rng, rows: np.tile(np.arange(LENGTH) >= LENGTH - K, (rows, 1))


def every(n: int) -> Where:
    return lambda rng, rows: np.tile(np.arange(LENGTH) % n == 0, (rows, 1))


def share(p: float) -> Where:
    return lambda rng, rows: rng.random((rows, LENGTH)) < p


def share_of_rows(p: float) -> Where:
    return lambda rng, rows: np.repeat(rng.random((rows, 1)) < p, LENGTH, axis=1)


KINDS: dict[str, Where] = {
    **{f"last {K} inputs": last(K) for K in (2, 3, 4, 8, 12, 20)},
    **{f"every {n}th input": every(n) for n in (8, 32, 100)},
    **{f"{p:.1%} of inputs": share(p) for p in (0.002, 0.01, 0.05)},
    "10% of rows": share_of_rows(0.1),
}


def power(where: Where, rows: int, rng: np.random.Generator, runs: int, *, hidden: bool = False) -> float:
    """Share of runs that are refused; hidden: where single differences are within the dtype's rounding."""
    found = 0
    for _ in range(runs):
        hits = int(np.take_along_axis(where(rng, rows), draw_cuts(rows, LENGTH, rng) - 1, axis=1).sum())
        found += favours_the_truth(np.ones(hits)) if hidden else hits > 0
    return found / runs


def simulate(runs: int, rng: np.random.Generator) -> None:
    print(f"{'looks ahead at':<24}" + "".join(f"{rows:>6} rows" for rows in (32, 256)))
    for name, where in KINDS.items():
        print(f"{name:<24}" + "".join(f"{power(where, rows, rng, runs):>11.2%}" for rows in (32, 256)), flush=True)
    for p in (0.1, 0.3, 1.0):
        shares = (power(share(p), rows, rng, runs, hidden=True) for rows in (32, 256))
        print(f"{f'nudge at {p:.0%} of inputs':<24}" + "".join(f"{found:>11.2%}" for found in shares), flush=True)


def main() -> None:
    rng = np.random.default_rng(1)
    simulate(int(sys.argv[1]), rng)
    config = load_config(*split_settings(sys.argv[2:] or ["configs/tiny.yaml"]))
    data, V = open_data(config), config.data.vocab_size
    model = make_model(config.model_copy(update={"kernels": "mlx"}))
    eps = float(mx.finfo(compute_dtype(config)).eps)
    scored: list[Scored] = []
    score(model, config, data)  # which compiles
    started = time.perf_counter()
    score(model, config, data, record=scored)
    between = time.perf_counter()
    check_scored(model, scored, vocab_size=V, eps=eps, rng=rng)
    print(f"scored in {between - started:.2f} s, checked in {time.perf_counter() - between:.2f} s")
    worst = 0.0
    for inputs, targets, losses, cuts in altered(scored, V, rng):
        again = token_nats(model, mx.array(inputs), mx.array(targets), V)
        before = np.arange(inputs.shape[1]) < cuts[:, None]
        worst = max(worst, float(np.abs(again - losses)[before].max()))
    print(f"largest difference of an honest model in {config.train.compute_dtype}: {worst:.3g} nats")


if __name__ == "__main__":
    main()
