"""One side of benchmarks/step.py, in a process of its own, so that no side's memory or settings touch another's.

    python benchmarks/sides.py SIDE DEVICE DTYPE [CONFIG.yaml] [section.key=value ...]

It builds the side, takes a first step and then does what it is told on standard input, one line each: `turn STEPS`,
`profile STEPS`. It answers each, and the first step, by a line of JSON on standard output.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle
from typing import Any
from unittest import mock

import numpy as np

import mlx_autoresearch  # noqa: F401  before mlx.core, which it prepares
from mlx_autoresearch.config.load import load_config, split_settings
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import ReportedError, from_mlx
from mlx_autoresearch.plain_text import one_line


@dataclass
class Side:
    """step: takes an optimizer step and waits for its loss. release: gives cached memory back. peak: bytes."""

    step: Callable[[], float]
    release: Callable[[], None]
    reset_peak: Callable[[], None]
    peak: Callable[[], int | None]


def batches(config: Config) -> list[tuple[np.ndarray, np.ndarray]]:
    """The micro-batches of one step, inputs and targets (B, T): a token of rank k is drawn in proportion to 1 / k."""
    rng, V = np.random.default_rng(0), config.data.vocab_size
    shape = config.accumulation_steps, config.train.device_batch_size, config.model.sequence_len + 1
    rows = (float(V) ** rng.random(shape) - 1).astype(np.int32)
    return [(micro[:, :-1], micro[:, 1:]) for micro in rows]


def ours(config: Config, _side: str, _device: str, _dtype: str, stack: ExitStack) -> Side:
    """As `mlx-autoresearch train` does it."""
    import mlx.core as mx

    from mlx_autoresearch.machine import compiled
    from mlx_autoresearch.recipe import interface
    from mlx_autoresearch.training.setup import choose_kernels, make_model

    stack.enter_context(compiled.kept())
    mx.random.seed(config.train.seed)
    told = config.for_recipe()
    model = make_model(config)
    optimizer = interface.make_optimizer(model, told)
    choose_kernels(model, optimizer, config)
    return _mlx(config, model, optimizer, interface.make_step(model, optimizer, told))


def plain(config: Config, _side: str, _device: str, dtype: str, _stack: ExitStack) -> Side:
    """What one writes first in MLX: its fused attention with a boolean mask, full float32 logits, its own exp and tanh.

    With the same fast BLAS, allocator settings and optimizer as ours.
    """
    import mlx.core as mx
    import mlx.nn as nn

    from mlx_autoresearch.machine import allocator, device
    from mlx_autoresearch.recipe import fastmath
    from mlx_autoresearch.recipe import model as model_module
    from mlx_autoresearch.recipe.loss import value_unscaled
    from mlx_autoresearch.recipe.model import GPT
    from mlx_autoresearch.recipe.optimizer import MuonAdamW
    from mlx_autoresearch.recipe.step import make_step

    class PlainGPT(GPT):
        def loss(self, idx: mx.array, targets: mx.array, loss_scale: mx.array | None = None) -> mx.array:
            logits = self.lm_head(self.hidden(idx)).astype(mx.float32)
            if self.config.softcap is not None:
                logits = self.config.softcap * mx.tanh(logits / self.config.softcap)
            loss = nn.losses.cross_entropy(logits, targets, reduction="mean")
            return loss if loss_scale is None else value_unscaled(loss * loss_scale, loss_scale)

    def attention(q: mx.array, k: mx.array, v: mx.array, window: int | None = None, **_: object) -> mx.array:
        T = q.shape[1]
        mask: str | mx.array = "causal"
        if window is not None and window < T - 1:
            back = mx.arange(T)[:, None] - mx.arange(T)  # how far query i looks back to key j
            mask = (back >= 0) & (back <= window)
        q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5, mask=mask).transpose(0, 2, 1, 3)

    mock.patch.object(fastmath, "use_polynomials", lambda: False).start()
    mock.patch.object(fastmath, "float32_on_cpu", lambda x: False).start()
    mock.patch.object(fastmath, "relu2", lambda x: mx.square(mx.maximum(x, 0))).start()
    mock.patch.object(model_module, "attention", attention).start()
    if not device.is_gpu():
        allocator.keep_freed_memory()
    mx.random.seed(config.train.seed)
    model = PlainGPT(config.gpt_config(), getattr(mx, dtype), "mlx")
    optimizer = MuonAdamW.for_gpt(model, kernels="mlx", **config.optimizer.model_dump())
    optimizer.init(model.parameters())
    return _mlx(config, model, optimizer, make_step(model, optimizer, config.accumulation_steps))


def _mlx(config: Config, model: Any, optimizer: Any, step: Callable[[Iterator], Any]) -> Side:
    import mlx.core as mx

    mx.eval(model.parameters(), optimizer.state)
    stream = ((mx.array(x), mx.array(y)) for x, y in cycle(batches(config)))
    return Side(lambda: step(stream).item(), mx.clear_cache, mx.reset_peak_memory, mx.get_peak_memory)


def torch_side(config: Config, side: str, device: str, dtype: str, _stack: ExitStack) -> Side:
    """torch_gpt.py under torch.compile; the peak of allocated memory is known on CUDA alone."""
    import torch
    from torch_gpt import TorchGPT
    from torch_muon import TorchMuonAdamW, make_step

    cuda = device == "cuda"
    if cuda:
        torch.set_float32_matmul_precision("high")  # TF32, where anything is multiplied in float32
    torch.manual_seed(config.train.seed)
    windows = "flex" if cuda else "mask"
    model = TorchGPT(
        config.gpt_config(), getattr(torch, dtype), "causal" if side == "torch-causal" else windows, device
    )
    optimizer = TorchMuonAdamW(model, config.optimizer, torch.float32 if device == "cpu" else torch.bfloat16)
    step = make_step(model, optimizer, config.accumulation_steps)

    def on_the_host(array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array.astype(np.int64))
        return tensor.pin_memory() if cuda else tensor

    rows = [(on_the_host(x), on_the_host(y)) for x, y in batches(config)]
    stream = ((x.to(device, non_blocking=True), y.to(device, non_blocking=True)) for x, y in cycle(rows))
    return Side(
        lambda: step(stream),
        torch.cuda.empty_cache if cuda else torch.mps.empty_cache if device == "mps" else lambda: None,
        torch.cuda.reset_peak_memory_stats if cuda else lambda: None,
        torch.cuda.max_memory_allocated if cuda else lambda: None,
    )


BUILD = {"ours": ours, "composed": ours, "plain": plain, "torch-causal": torch_side, "torch-windows": torch_side}


def turn(side: Side, steps: int) -> dict[str, Any]:
    """Seconds of each step, after one that takes memory again, and the peak of these steps."""
    side.step()
    side.reset_peak()
    seconds = []
    for _ in range(steps):
        started = time.perf_counter()
        side.step()
        seconds.append(time.perf_counter() - started)
    peak = side.peak()
    side.release()
    return {"seconds": seconds, "peak": peak}


def main() -> None:
    try:
        serve()
    except (ReportedError, MemoryError, RuntimeError) as error:  # MLX and PyTorch raise the last for everything
        reported = error if isinstance(error, ReportedError) else from_mlx(error)
        if reported is None:
            raise
        sys.exit(f"error: {one_line(str(reported))}")
    except KeyboardInterrupt:  # step.py got it too, and says so
        sys.exit(130)


def serve() -> None:
    """Build the side, and answer until standard input ends."""
    name, device, dtype, *words = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer

    def answer(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    config = load_config(*split_settings(words))
    with ExitStack() as stack:
        started = time.perf_counter()
        side = BUILD[name](config, name, device, dtype, stack)
        loss = side.step()
        answer({"first": time.perf_counter() - started, "loss": loss})
        side.release()
        for line in sys.stdin:
            command, steps = line.split()
            if command == "turn":
                answer(turn(side, int(steps)))
            else:
                from kernel_times import recorded

                answer({"text": recorded(side.step, int(steps)).text()})
                side.release()


if __name__ == "__main__":
    main()
