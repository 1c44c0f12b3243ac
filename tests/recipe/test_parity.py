"""Agreement with the public reference (karpathy/autoresearch, float32 on a CPU), fixture by fixture.

Budgets are relative errors on a norm basis. The reference's own float32 run differs from a float64 one by about 1e-6
per array; backward passes and optimizer steps multiply that by the depth of the graph and by 1/|gradient|, hence the
larger budgets further down the chain.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_autoresearch.config.gpt import GPTConfig
from mlx_autoresearch.recipe.model import GPT
from mlx_autoresearch.recipe.optimizer import AdamWGroup, MuonAdamW, MuonGroup
from tests.support.arrays import load_parity, parity_files, prefixed, relative_error

LOGITS, GRADIENT, ONE_STEP, FIVE_STEPS, LOSS = 5e-6, 2e-5, 2e-5, 1e-4, 2e-6

pytestmark = pytest.mark.parametrize("path", parity_files("logits"), ids=lambda p: p.stem)


@pytest.fixture(autouse=True)
def on_the_cpu() -> Iterator[None]:
    """Where the reference ran. A GPU rounds products otherwise, and Metal's sines are fast ones."""
    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    yield
    mx.set_default_device(before)


def model_of(meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> GPT:
    model = GPT(GPTConfig(**meta["config"]), compute_dtype=mx.float32)
    model.load_reference_weights(dict(prefixed(arrays, "init")))
    return model


def batch(arrays: dict[str, np.ndarray], step: int) -> tuple[mx.array, mx.array]:
    tokens = mx.array(arrays["tokens"][step])
    return tokens[:, :-1], tokens[:, 1:]


def flat(tree: Any) -> dict[str, mx.array]:
    return dict(tree_flatten(tree))


def test_shape_counts_and_flops(path: Path) -> None:
    meta, arrays = load_parity(path)
    model = model_of(meta, arrays)
    assert model.config.window_sizes == meta["window_sizes"]
    assert model.parameter_counts() == meta["params"]
    assert model.flops_per_token() == meta["flops_per_token"]


def test_logits_and_loss(path: Path) -> None:
    meta, arrays = load_parity(path)
    model = model_of(meta, arrays)
    x, y = batch(arrays, 0)
    logits = model(x)
    assert relative_error(logits, arrays["logits"]) < LOGITS
    per_token = nn.losses.cross_entropy(logits, y).reshape(-1)
    assert relative_error(per_token, arrays["loss_none"]) < LOGITS
    assert relative_error(model.loss(x, y), arrays["loss"]) < LOSS


def test_every_gradient(path: Path) -> None:
    meta, arrays = load_parity(path)
    model = model_of(meta, arrays)
    _, gradients = nn.value_and_grad(model, model.loss)(*batch(arrays, 0))
    expected = dict(prefixed(arrays, "grad"))
    got = flat(gradients)
    assert got.keys() == expected.keys()
    errors = {name: relative_error(got[name], expected[name]) for name in expected}
    assert max(errors.values()) < GRADIENT, errors


def test_optimizer_groups(path: Path) -> None:
    meta, arrays = load_parity(path)
    groups = MuonAdamW.for_gpt(model_of(meta, arrays), **meta["optimizer"]).groups
    assert len(groups) == len(meta["groups"])
    for group, expected in zip(groups, meta["groups"], strict=True):
        assert sorted(group.names) == sorted(expected["names"])
        assert group.lr == pytest.approx(expected["initial_lr"], rel=1e-12)
        if isinstance(group, AdamWGroup):
            assert (expected["kind"], list(group.betas), group.eps) == ("adamw", expected["betas"], expected["eps"])
            assert group.weight_decay == expected["weight_decay"]
        else:
            assert expected["kind"] == "muon"
            assert group.weight_decay == meta["optimizer"]["weight_decay"]


def test_five_optimizer_steps(path: Path) -> None:
    meta, arrays = load_parity(path)
    model = model_of(meta, arrays)
    optimizer = MuonAdamW.for_gpt(model, **meta["optimizer"], ns_dtype=mx.float32)
    optimizer.init(model.parameters())
    loss_and_grad = nn.value_and_grad(model, model.loss)
    undecided = {name: np.zeros(p.shape, bool) for name, p in flat(model.parameters()).items()}
    losses = []
    for step in range(len(arrays["losses"])):
        loss, gradients = loss_and_grad(*batch(arrays, step))
        losses.append(loss.item())
        before = flat(model.parameters())
        decay = meta["muon_weight_decay"][step]
        optimizer.set_schedule(
            lr_multiplier=meta["lr_multiplier"][step],
            momentum=meta["muon_momentum"][step],
            weight_decay_multiplier=decay / meta["optimizer"]["weight_decay"],
        )
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state)
        after = flat(model.parameters())
        for group in optimizer.groups:
            if isinstance(group, MuonGroup):
                lr = group.lr * meta["lr_multiplier"][step]
                for name in group.names:
                    undecided[name] |= coin_toss(before[name], after[name], lr, decay)
        if step == 0:
            check(arrays, "step1", after, undecided, ONE_STEP)
            adopt(model, dict(prefixed(arrays, "step1")), undecided)
    check(arrays, "step5", flat(model.parameters()), undecided, FIVE_STEPS)
    assert relative_error(losses, arrays["losses"]) < LOSS * 5


def coin_toss(before: mx.array, after: mx.array, lr: float, decay: float) -> np.ndarray:
    """Where Muon's update is zero to float32 rounding.

    Cautious weight decay asks for the sign of that update, so there rounding alone decides whether an element decays
    by lr * decay * |p|. About one element in 10^5 is such a case.
    """
    p, q = np.array(before, np.float64), np.array(after, np.float64)
    lr = lr * max(1.0, p.shape[0] / p.shape[1]) ** 0.5
    moved = p - q
    return np.minimum(np.abs(moved), np.abs(moved - lr * decay * p)) < 1e-6 * lr + 1.2e-7 * np.abs(p)


def adopt(model: GPT, reference: dict[str, np.ndarray], undecided: dict[str, np.ndarray]) -> None:
    """Take the reference's outcome where rounding alone decided, so that both go on from the same parameters."""
    current = flat(model.parameters())
    model.load_weights(
        [(name, mx.array(np.where(u, reference[name], np.array(current[name])))) for name, u in undecided.items()]
    )


def check(arrays: dict, key: str, got: dict, undecided: dict, budget: float) -> None:
    expected = dict(prefixed(arrays, key))
    assert got.keys() == expected.keys()
    skipped = sum(int(u.sum()) for u in undecided.values())
    assert skipped <= 1e-3 * sum(u.size for u in undecided.values()), "too many elements left out to prove anything"
    errors = {
        name: relative_error(np.where(undecided[name], 0, got[name]), np.where(undecided[name], 0, expected[name]))
        for name in expected
    }
    assert max(errors.values()) < budget, {n: e for n, e in errors.items() if e >= budget}
