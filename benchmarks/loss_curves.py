"""Losses and milliseconds of 50 steps in several precisions, composed of MLX and with our kernels, on the same batches.

    python benchmarks/loss_curves.py [--dtypes bfloat16,float16] [--kernels mlx,custom,auto] [CONFIG.yaml]
                                     [section.key=value ...]

All in one run, from the same weights. How far our kernels may be from composed MLX in float32 is how far composed MLX
is from it in the same precision. Newton-Schulz has the activations' precision too. In float16 `skipped` counts the
steps whose gradients overflowed. The batches are sequences with something to learn: a token is the one before it plus
1, 2 or 3. On a CPU `--kernels mlx` works.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator

import mlx_autoresearch  # noqa: F401  before mlx.core, which it prepares

# isort: split
import mlx.core as mx
import numpy as np

from mlx_autoresearch.config.load import load_config, split_settings
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.machine import device
from mlx_autoresearch.recipe import interface
from mlx_autoresearch.recipe.optimizer import MuonAdamW
from mlx_autoresearch.recipe.step import make_step
from mlx_autoresearch.training.setup import make_model

STEPS = 50


def batches(config: Config) -> Iterator[tuple[mx.array, mx.array]]:
    source = np.random.default_rng(0)
    shape = config.train.device_batch_size, config.model.sequence_len + 1
    while True:
        rows = np.cumsum(source.integers(1, 4, shape), axis=1) % config.data.vocab_size
        yield mx.array(rows[:, :-1]), mx.array(rows[:, 1:])


def train(config: Config, kernels: str, dtype: str) -> tuple[np.ndarray, float, int | None]:
    """The loss of every step, the median milliseconds of a step, and how many steps were skipped."""
    config = config.model_copy(
        update={"kernels": kernels, "train": config.train.model_copy(update={"compute_dtype": dtype})}
    )
    mx.random.seed(config.train.seed)
    model = make_model(config)
    optimizer = MuonAdamW.for_gpt(model, getattr(mx, dtype), config.kernels, **config.optimizer.model_dump())
    optimizer.init(model.parameters())
    step, stream = make_step(model, optimizer, config.accumulation_steps), batches(config)
    losses, seconds = [], []
    for _ in range(STEPS):
        started = time.perf_counter()
        losses.append(step(stream).item())
        seconds.append(time.perf_counter() - started)
    return np.array(losses), 1000 * float(np.median(seconds)), interface.skipped_steps(optimizer)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dtypes", default="bfloat16,float16", help="precisions beside float32, by commas")
    parser.add_argument("--kernels", default="mlx,custom,auto", help="choices of kernels, by commas")
    parser.add_argument("settings", nargs="*", help="[CONFIG.yaml] [section.key=value ...]")
    arguments = parser.parse_args()
    dtypes, choices = arguments.dtypes.split(","), arguments.kernels.split(",")
    if unknown := {*dtypes, *choices} - {"float32", "bfloat16", "float16", "mlx", "custom", "auto"}:
        parser.error(f"unknown {', '.join(sorted(unknown))}: see the first lines of this file")
    if device.kernel_backend() is None and choices != ["mlx"]:
        sys.exit(
            "benchmarks/loss_curves.py needs a GPU, but for --kernels mlx: tests/recipe/kernels/test_training.py does "
            "this in the simulator"
        )
    config = load_config(*split_settings(arguments.settings))
    print(f"{device.device_name()}, {' '.join(arguments.settings) or 'defaults'}")
    pairs = [("mlx", "float32"), *((kernels, dtype) for dtype in dtypes for kernels in choices)]
    runs = {f"{kernels} {dtype}": train(config, kernels, dtype) for kernels, dtype in dict.fromkeys(pairs)}
    exact = runs["mlx float32"][0]
    print(f"{'':<16} {'ms a step':>9} {'tokens/s':>12} {'skipped':>7}  loss at steps 1, 10, 25, 50          "
          "from float32: largest, mean")  # fmt: skip
    for name, (losses, milliseconds, skipped) in runs.items():
        speed = config.train.total_batch_size / milliseconds * 1000
        shown = "  ".join(f"{losses[i - 1]:8.4f}" for i in (1, 10, 25, 50))
        distance = np.abs(losses - exact)
        print(f"{name:<16} {milliseconds:9.2f} {speed:12,.0f} {'' if skipped is None else skipped:>7}  {shown}"
              f"  {distance.max():.4f}  {distance.mean():.4f}")  # fmt: skip


if __name__ == "__main__":
    main()
