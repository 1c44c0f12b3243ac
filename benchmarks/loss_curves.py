"""Losses and milliseconds of 50 steps with composed MLX and with our kernels, in one run, on the same batches.

    python benchmarks/loss_curves.py [CONFIG.yaml] [section.key=value ...]     needs a GPU: Metal or CUDA

Both train in bfloat16; the measure of how far they may be apart is how far composed MLX in bfloat16 is from itself in
float32. The batches are sequences with something to learn: a token is the one before it plus 1, 2 or 3.
"""

from __future__ import annotations

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


def train(config: Config, kernels: str, dtype: str) -> tuple[np.ndarray, float]:
    """The loss of every step, and the median milliseconds of a step."""
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
    return np.array(losses), 1000 * float(np.median(seconds))


def main() -> None:
    if device.kernel_backend() is None:
        sys.exit(
            "benchmarks/loss_curves.py needs a GPU: tests/recipe/kernels/test_training.py does this in the simulator"
        )
    config = load_config(*split_settings(sys.argv[1:]))
    print(f"{device.device_name()}, {' '.join(sys.argv[1:]) or 'defaults'}")
    runs = {
        name: train(config, *how)
        for name, how in {
            "mlx float32": ("mlx", "float32"),
            "mlx bfloat16": ("mlx", "bfloat16"),
            "custom bfloat16": ("custom", "bfloat16"),
            "auto bfloat16": ("auto", "bfloat16"),
        }.items()
    }
    print(f"{'':<16} {'ms a step':>9} {'tokens/s':>12}  loss at steps 1, 10, 25, 50")
    for name, (losses, milliseconds) in runs.items():
        speed = config.train.total_batch_size / milliseconds * 1000
        shown = "  ".join(f"{losses[i - 1]:.4f}" for i in (1, 10, 25, 50))
        print(f"{name:<16} {milliseconds:9.2f} {speed:12,.0f}  {shown}")
    exact = runs["mlx float32"][0]
    for name in ("mlx bfloat16", "custom bfloat16", "auto bfloat16"):
        distance = np.abs(runs[name][0] - exact)
        print(f"{name:<16} from mlx float32: largest {distance.max():.4f}, mean {distance.mean():.4f}")


if __name__ == "__main__":
    main()
