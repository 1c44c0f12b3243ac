"""Optimizer steps per second, ours beside a plain MLX port of the same model, in one run.

    python benchmarks/train_step.py [CONFIG.yaml] [section.key=value ...]

The plain side is what one writes first: `mx.fast.scaled_dot_product_attention` with a boolean mask where a window asks
for one, the full float32 logits, `nn.losses.cross_entropy`, MLX's own exp and tanh, compiled; with the same fast BLAS
and optimizer. The two take turns, step by step, so that a noisy machine disturbs both alike. Random tokens.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from unittest import mock

import mlx_autoresearch  # noqa: F401  before mlx.core, for the fast BLAS

# isort: split
import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_autoresearch.config.load import load_config
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.machine import allocator, device
from mlx_autoresearch.recipe import fastmath
from mlx_autoresearch.recipe import model as model_module
from mlx_autoresearch.recipe.model import GPT
from mlx_autoresearch.recipe.optimizer import MuonAdamW
from mlx_autoresearch.recipe.step import make_step
from mlx_autoresearch.training.setup import compute_dtype

ROUNDS = 7


def plain_attention(q: mx.array, k: mx.array, v: mx.array, window: int | None = None, **_: object) -> mx.array:
    T = q.shape[1]
    mask: str | mx.array = "causal"
    if window is not None and window < T - 1:
        back = mx.arange(T)[:, None] - mx.arange(T)  # how far query i looks back to key j
        mask = (back >= 0) & (back <= window)
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5, mask=mask).transpose(0, 2, 1, 3)


class PlainGPT(GPT):
    def loss(self, idx: mx.array, targets: mx.array) -> mx.array:
        logits = self.lm_head(self.hidden(idx)).astype(mx.float32)
        if self.config.softcap is not None:
            logits = self.config.softcap * mx.tanh(logits / self.config.softcap)
        return nn.losses.cross_entropy(logits, targets, reduction="mean")


def stepper(cls: type[GPT], config: Config) -> Callable[[Iterator], mx.array]:
    mx.random.seed(config.train.seed)
    kernels = "mlx" if cls is PlainGPT else config.kernels
    model = cls(config.gpt_config(), compute_dtype(config), kernels)
    optimizer = MuonAdamW.for_gpt(model, kernels=kernels, **config.optimizer.model_dump())
    optimizer.init(model.parameters())
    mx.eval(model.parameters(), optimizer.state)
    return make_step(model, optimizer, config.accumulation_steps)


def main() -> None:
    if not device.is_gpu():
        allocator.keep_freed_memory()  # both sides, as in a training
    arguments = sys.argv[1:]
    path = arguments.pop(0) if arguments and "=" not in arguments[0] else None
    config = load_config(path, arguments)
    rng = np.random.default_rng(0)
    B, T = config.train.device_batch_size, config.model.sequence_len

    def batches() -> Iterator[tuple[mx.array, mx.array]]:
        while True:
            rows = mx.array(rng.integers(0, config.data.vocab_size, (B, T + 1), dtype=np.int32))
            yield rows[:, :-1], rows[:, 1:]

    stream = batches()
    plain_operations = (
        mock.patch.object(fastmath, "use_polynomials", lambda: False),
        mock.patch.object(model_module, "attention", plain_attention),
        mock.patch.object(fastmath, "float32_on_cpu", lambda x: False),
        mock.patch.object(fastmath, "relu2", lambda x: mx.square(mx.maximum(x, 0))),
    )
    sides: dict[str, Callable[[Iterator], mx.array]] = {}
    peaks: dict[str, int] = {}
    for name, cls in (("plain MLX", PlainGPT), ("mlx_autoresearch", GPT)):
        sides[name] = stepper(cls, config)
        if cls is PlainGPT:
            for patch in plain_operations:
                patch.start()
        mx.reset_peak_memory()
        started = time.perf_counter()
        sides[name](stream)  # traces and compiles
        print(f"{name}: first step {time.perf_counter() - started:.1f} s", flush=True)
        peaks[name] = mx.get_peak_memory()
        mock.patch.stopall()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, step in sides.items():
            started = time.perf_counter()
            step(stream)
            times[name].append(time.perf_counter() - started)
    tokens = config.train.total_batch_size
    dtype = compute_dtype(config)
    peak = device.published_peak_flops(device.device_name(), dtype) or device.matmul_peak_flops(dtype)
    flops = GPT(config.gpt_config()).flops_per_token()
    print(f"{device.device_name()}, {dtype}, {tokens:,} tokens a step; MFU of {peak / 1e12:.3g} TFLOP/s")
    print(f"{'':<18}{'ms a step (median, min-max)':>30}{'tokens/s':>12}{'MFU':>8}{'peak memory':>14}")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        spread = f"{1e3 * median:.1f} ({1e3 * min(seconds):.1f}-{1e3 * max(seconds):.1f})"
        print(
            f"{name:<18}{spread:>30}{tokens / median:>12,.0f}{100 * flops * tokens / median / peak:>7.1f}%"
            f"{peaks[name] / 2**30:>10.2f} GiB"
        )
    print(
        f"ratio of medians: {statistics.median(times['plain MLX']) / statistics.median(times['mlx_autoresearch']):.2f}"
    )


if __name__ == "__main__":
    main()
