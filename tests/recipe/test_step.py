"""The compiled optimizer step: what the plain one computes, in flat memory, with nothing frozen into it."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from mlx_autoresearch.config.gpt import GPTConfig
from mlx_autoresearch.recipe.model import GPT
from mlx_autoresearch.recipe.optimizer import MuonAdamW
from mlx_autoresearch.recipe.step import make_step


class Recorder:
    """In an optimizer's place: keeps the gradients that a step gives it, and changes nothing."""

    kernels = "mlx"

    def __init__(self, model: GPT):
        self.state = {name: mx.zeros_like(p) for name, p in tree_flatten(model.parameters())}

    def update(self, model: GPT, gradients: dict) -> None:
        self.state |= dict(tree_flatten(gradients))


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_accumulated_gradients_are_those_of_one_large_batch(parts: int) -> None:
    """As near as the large batch's to the mean of every row's own gradient, taken in float64, but for a factor of 3."""
    mx.random.seed(0)
    model = GPT(GPTConfig(sequence_len=16, vocab_size=40, n_layer=2, n_head=2, n_kv_head=1, n_embd=32), mx.float32)
    # Off the initialisation, whose zero projections would leave most gradients zero.
    model.update(tree_map(lambda p: p + 0.05 * mx.random.normal(p.shape), model.parameters()))
    rows = mx.array(np.random.default_rng(0).integers(0, 40, (8, 17)))
    x, y = rows[:, :-1], rows[:, 1:]

    def gradients(parts: int) -> tuple[float, dict[str, np.ndarray]]:
        recorder = Recorder(model)
        step = make_step(model, recorder, parts)  # type: ignore[arg-type]
        loss = step(iter(zip(mx.split(x, parts), mx.split(y, parts), strict=True))).item()
        return loss, {name: np.array(g, dtype=np.float64) for name, g in recorder.state.items()}

    alone = [nn.value_and_grad(model, model.loss)(x[i : i + 1], y[i : i + 1])[1] for i in range(8)]
    flat = [{name: np.array(g, dtype=np.float64) for name, g in tree_flatten(grads)} for grads in alone]
    whole_loss, whole = gradients(1)
    loss, accumulated = gradients(parts)
    assert loss == pytest.approx(whole_loss, rel=1e-6)
    exact = {name: np.mean([g[name] for g in flat], axis=0) for name in whole}

    def errors(got: dict[str, np.ndarray]) -> dict[str, float]:
        return {name: np.abs(got[name] - g).max() / np.abs(g).max() for name, g in exact.items()}

    budget = 3 * max(errors(whole).values())
    assert budget < 1e-4  # rounding, and no more
    assert {name: error for name, error in errors(accumulated).items() if not error <= budget} == {}


def test_scheduled_scalars_are_not_frozen_into_the_compiled_step() -> None:
    """A learning rate of zero, set after compilation, must stop the parameters."""
    mx.random.seed(0)
    model = GPT(GPTConfig(sequence_len=8, vocab_size=20, n_layer=1, n_head=1, n_kv_head=1, n_embd=16), mx.float32)
    optimizer = MuonAdamW.for_gpt(model)
    optimizer.init(model.parameters())
    step = make_step(model, optimizer)
    pair = mx.array(np.random.default_rng(0).integers(0, 20, (2, 8)))

    def snapshot() -> dict[str, np.ndarray]:
        return {name: np.array(p) for name, p in tree_flatten(model.parameters())}

    changed = []
    for multiplier in (1.0, 0.0, 1.0):
        optimizer.set_schedule(lr_multiplier=multiplier, momentum=0.9, weight_decay_multiplier=1.0)
        before = snapshot()
        step(iter([(pair, pair)]))
        changed.append(any((before[n] != p).any() for n, p in snapshot().items()))
    assert changed == [True, False, True]
    assert optimizer.state["scalars"]["step"].item() == 3


def test_the_compiled_step_computes_what_the_plain_one_does() -> None:
    losses = []
    for compiled in (True, False):
        mx.random.seed(0)
        model = GPT(GPTConfig(sequence_len=8, vocab_size=20, n_layer=2, n_head=2, n_kv_head=1, n_embd=16), mx.float32)
        optimizer = MuonAdamW.for_gpt(model)
        optimizer.init(model.parameters())
        rows = mx.array(np.random.default_rng(0).integers(0, 20, (4, 9)))
        if not compiled:
            mx.disable_compile()
        try:
            step = make_step(model, optimizer)
            losses.append([step(iter([(rows[:, :-1], rows[:, 1:])])).item() for _ in range(5)])
        finally:
            mx.enable_compile()
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][-1] < losses[0][0] - 0.1


@pytest.mark.parametrize("accumulation_steps", [1, 3])
def test_memory_is_flat_from_the_second_step_on(accumulation_steps: int) -> None:
    """Over a run far longer than a demo: no more is held, and no higher peak reached, late than early."""
    mx.random.seed(0)
    model = GPT(GPTConfig(sequence_len=16, vocab_size=64, n_layer=2, n_head=2, n_kv_head=1, n_embd=32), mx.float32)
    optimizer = MuonAdamW.for_gpt(model)
    optimizer.init(model.parameters())
    step = make_step(model, optimizer, accumulation_steps)
    rng = np.random.default_rng(0)

    def batches():
        while True:
            rows = mx.array(rng.integers(0, 64, (4, 17)))
            yield rows[:, :-1], rows[:, 1:]

    stream = batches()
    active, peaks = [], []
    for _ in range(300):
        optimizer.set_schedule(lr_multiplier=1.0, momentum=0.9, weight_decay_multiplier=1.0)
        mx.reset_peak_memory()
        step(stream).item()
        active.append(mx.get_active_memory())
        peaks.append(mx.get_peak_memory())
    # A few arrays of the last step may not be freed yet when memory is read; one batch leaked a step would be 100%.
    for held in (active, peaks):
        assert max(held[20:]) <= 1.1 * max(held[1:20])
