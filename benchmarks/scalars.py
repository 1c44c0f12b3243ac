"""How much of the noise between seeds comes from scalars that rounding decides.

    python benchmarks/scalars.py [--seeds 6] [--eps 1e-10,1e-5] [CONFIG.yaml] [section.key=value ...]

While the output projections are zero, the gradients of resid_lambdas and x0_lambdas are zero but for rounding, and
AdamW turns the sign of that rounding into a full step unless its epsilon is larger. For every `optimizer.scalar_eps`
and seed this trains from the same prepared text, all in one process and in turns, and prints: the first gradients of
the scalars, the mean loss of the first 60 steps, and val_bpb, with mean and standard deviation over the seeds.
"""

from __future__ import annotations

import argparse
from typing import Any

import mlx_autoresearch  # noqa: F401  before mlx.core, which it prepares

# isort: split
import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from mlx_autoresearch.config.load import load_config, split_settings, with_settings
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.data.packing import PackedBatches
from mlx_autoresearch.machine import device
from mlx_autoresearch.training.clock import Clock
from mlx_autoresearch.training.data import open_data
from mlx_autoresearch.training.loop import loop
from mlx_autoresearch.training.scoring import score_model
from mlx_autoresearch.training.setup import setup

EARLY = 60  # steps
SHOWN = (1, 2, 3, 5, 10, 30, 100, 300)  # steps at which gradients are shown


def train(config: Config) -> tuple[np.ndarray, float]:
    """The loss of every step, and val_bpb."""
    data = open_data(config)
    training = setup(config, data)
    losses = [record["loss"] for record in loop(training, Clock(config.train, 0.0), 1.0)]
    bpb = score_model(training.model, config, data).val_bpb
    mx.clear_cache()
    return np.array(losses), bpb


def gradients(config: Config) -> None:
    """Print the root mean square of the scalars' gradients, over layers, at some steps of a training."""
    data = open_data(config)
    training = setup(config, data)
    split = data.split("train")
    probe = next(
        PackedBatches(
            split.tokens,
            split.offsets,
            batch_size=config.train.device_batch_size,
            sequence_len=config.model.sequence_len,
        )
    )
    inputs, targets = mx.array(probe.inputs), mx.array(probe.targets)
    model = training.model

    def scalars() -> dict[str, float]:
        def loss(parameters: Any) -> mx.array:
            model.update(parameters)
            return model.loss(inputs, targets)

        kept = model.parameters()
        found: dict[str, mx.array] = dict(tree_flatten(mx.grad(loss)(kept)))  # type: ignore[arg-type]
        model.update(kept)
        return {n: float(mx.sqrt(mx.square(g).mean()).item()) for n, g in found.items() if "lambdas" in n}

    print(f"{'step':>6} " + " ".join(f"{name:>16}" for name in scalars()))
    print(f"{1:>6} " + " ".join(f"{size:16.2e}" for size in scalars().values()))
    for record in loop(training, Clock(config.train, 0.0), 1.0):
        if record["step"] + 1 in SHOWN:
            print(f"{record['step'] + 1:>6} " + " ".join(f"{size:16.2e}" for size in scalars().values()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--eps", type=lambda text: [float(eps) for eps in text.split(",")], default=[1e-10, 1e-5, 1e-4])
    parser.add_argument("settings", nargs="*")
    arguments = parser.parse_args()
    config = load_config(*split_settings(arguments.settings))
    print(f"{device.device_name()}, {' '.join(arguments.settings) or 'defaults'}, {config.train.max_steps} steps")
    gradients(config)
    results: dict[float, list[tuple[np.ndarray, float]]] = {eps: [] for eps in arguments.eps}
    for seed in range(42, 42 + arguments.seeds):
        for eps, runs in results.items():
            changed = with_settings(config, {"optimizer.scalar_eps": eps, "train.seed": seed}, "the benchmark")
            runs.append(train(changed))
            losses, bpb = runs[-1]
            print(f"seed {seed}, eps {eps:g}: first {EARLY} {losses[:EARLY].mean():.4f}, val_bpb {bpb:.5f}", flush=True)
    print(f"{'scalar_eps':>10} {'mean loss of the first ' + str(EARLY):>28} {'last 100':>18} {'val_bpb':>20}")
    for eps, runs in results.items():
        rows = [[losses[:EARLY].mean() for losses, _ in runs], [losses[-100:].mean() for losses, _ in runs]]
        rows.append([bpb for _, bpb in runs])
        cells = [f"{np.mean(row):.4f} +- {np.std(row, ddof=1):.4f}" for row in rows]
        print(f"{eps:>10g} {cells[0]:>28} {cells[1]:>18} {cells[2]:>20}")


if __name__ == "__main__":
    main()
