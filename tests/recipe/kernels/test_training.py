"""A model trained with custom kernels learns as one composed of MLX does: same losses, within rounding."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import mlx.core as mx
import numpy as np
import pytest

from mlx_autoresearch.config.load import validate_config
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.kernels import launch
from mlx_autoresearch.kernels.operation import recording
from mlx_autoresearch.recipe.optimizer import MuonAdamW
from mlx_autoresearch.recipe.step import make_step
from mlx_autoresearch.training.setup import choose_kernels, make_model
from tests.support.operations import OPERATIONS

STEPS = 20  # by then the loss is near its floor, ln 3, and rounding has done its worst


def configuration(kernels: str, dtype: str) -> Config:
    """Two layers, grouped heads, a window, an odd row length."""
    values = {
        "data": {"vocab_size": 260},
        "model": {"n_layer": 2, "n_embd": 64, "n_head": 2, "n_kv_head": 1, "sequence_len": 33, "window_pattern": "SL"},
        "train": {"total_batch_size": 66, "device_batch_size": 2, "compute_dtype": dtype},
        "kernels": kernels,
    }
    return validate_config(values, "test")


def batches(config: Config) -> Iterator[tuple[mx.array, mx.array]]:
    """Sequences with something to learn: each token is the one before it plus a small number."""
    source = np.random.default_rng(0)
    while True:
        jumps = source.integers(1, 4, (config.train.device_batch_size, config.model.sequence_len + 1))
        rows = np.cumsum(jumps, axis=1) % config.data.vocab_size
        yield mx.array(rows[:, :-1]), mx.array(rows[:, 1:])


def losses(kernels: str, dtype: str) -> np.ndarray:
    config = configuration(kernels, dtype)
    mx.random.seed(0)
    model = make_model(config)
    optimizer = MuonAdamW.for_gpt(model, getattr(mx, dtype), config.kernels, ns_steps=3)
    optimizer.init(model.parameters())
    step, stream = make_step(model, optimizer), batches(config)
    return np.array([step(stream).item() for _ in range(STEPS)])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_loss_curve_is_that_of_composed_mlx(implementation, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    # Checking every access, which the test below does, would take minutes here; it changes no value.
    monkeypatch.setattr(launch, "simulate", partial(launch.simulate, checked=False))
    exact, composed, custom = losses("mlx", "float32"), losses("mlx", dtype), losses("custom", dtype)
    budget = 2 * np.maximum.accumulate(np.abs(composed - exact)) + 2e-3
    assert exact[-5:].mean() < 0.4 * exact[0]  # it does learn
    assert (np.abs(custom - exact) <= budget).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_step_runs_every_kernel(implementation, dtype: str) -> None:
    config = configuration("custom", dtype)
    model = make_model(config)
    optimizer = MuonAdamW.for_gpt(model, kernels="custom")
    optimizer.init(model.parameters())
    used = choose_kernels(model, optimizer, config)
    assert {what.split()[0] for what in used} == OPERATIONS
    assert set(used.values()) == {implementation}
    with recording() as used:
        first = make_step(model, optimizer)(batches(config)).item()
    assert abs(first - np.log(260)) < 0.2
    assert set(used.values()) == {implementation}
