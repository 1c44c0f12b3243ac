"""Agreement with the public reference (karpathy/autoresearch, float32 on a CPU), fixture by fixture.

Budgets are relative errors on a norm basis, and come from how far rounding moves our own results on this machine
(tests/support/rounding.py). An optimizer step makes a discontinuous choice wherever it asks for a sign: where rounding
alone decides that sign, either outcome is right.
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

from mlx_autoresearch.recipe.optimizer import AdamWGroup, MuonAdamW
from tests.support.arrays import load_parity, parity_files, prefixed
from tests.support.rounding import DRAWS, check_within, nudged, rounding, spread
from tests.support.training import Training, gpt, hangs_on_rounding

pytestmark = pytest.mark.parametrize("path", parity_files("logits"), ids=lambda p: p.stem)


@pytest.fixture(autouse=True)
def on_the_cpu() -> Iterator[None]:
    """Where the reference ran. A GPU rounds products otherwise, and Metal's sines are fast ones."""
    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    yield
    mx.set_default_device(before)


def batch(arrays: dict[str, np.ndarray], step: int) -> tuple[mx.array, mx.array]:
    tokens = mx.array(arrays["tokens"][step])
    return tokens[:, :-1], tokens[:, 1:]


def test_shape_counts_and_flops(path: Path) -> None:
    meta, arrays = load_parity(path)
    model = gpt(meta["config"], dict(prefixed(arrays, "init")))
    assert model.config.window_sizes == meta["window_sizes"]
    assert model.parameter_counts() == meta["params"]
    assert model.flops_per_token() == meta["flops_per_token"]


def test_logits_and_loss(path: Path) -> None:
    meta, arrays = load_parity(path)
    x, y = batch(arrays, 0)

    def results(weights: dict[str, Any]) -> dict[str, mx.array]:
        model = gpt(meta["config"], weights)
        logits = model(x)
        per_token = nn.losses.cross_entropy(logits, y).reshape(-1)
        return {"logits": logits, "loss_none": per_token, "loss": model.loss(x, y)}

    init = dict(prefixed(arrays, "init"))
    got = results(init)
    check_within(got, {name: arrays[name] for name in got}, rounding(results, init))


def test_every_gradient(path: Path) -> None:
    meta, arrays = load_parity(path)

    def gradients(weights: dict[str, Any]) -> dict[str, mx.array]:
        model = gpt(meta["config"], weights)
        return dict(tree_flatten(nn.value_and_grad(model, model.loss)(*batch(arrays, 0))[1]))  # type: ignore[arg-type]

    init = dict(prefixed(arrays, "init"))
    check_within(gradients(init), dict(prefixed(arrays, "grad")), rounding(gradients, init))


def test_optimizer_groups(path: Path) -> None:
    meta, arrays = load_parity(path)
    groups = MuonAdamW.for_gpt(gpt(meta["config"], dict(prefixed(arrays, "init"))), **meta["optimizer"]).groups
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
    init = dict(prefixed(arrays, "init"))
    ours = Training(meta, init)
    others = [Training(meta, {name: nudged(p, draw) for name, p in init.items()}) for draw in range(DRAWS)]
    undecided = {name: np.zeros(p.shape, bool) for name, p in init.items()}

    def check(key: str) -> None:
        skipped = sum(int(u.sum()) for u in undecided.values())
        assert skipped <= 0.1 * sum(u.size for u in undecided.values()), "too many left out to prove anything"
        got, *nearby = (
            {name: np.where(undecided[name], 0, p) for name, p in training.parameters().items()} | {"losses": losses}
            for training in (ours, *others)
            for losses in [np.array(training.losses)]
        )
        expected = {name: np.where(undecided[name], 0, p) for name, p in prefixed(arrays, key)}
        losses = {"losses": arrays["losses"][: len(ours.losses)]}
        check_within(got, expected | losses, spread(got, nearby))

    for step in range(len(arrays["losses"])):
        for training in (ours, *others):
            training.step(*batch(arrays, step), step)
        tossed = {name: hangs_on_rounding(name, ours, others) for name in undecided}
        undecided = {name: u | tossed[name] for name, u in undecided.items()}
        if step == 0:
            check("step1")
            for training in (ours, *others):  # so that all go on as the reference does
                training.adopt(dict(prefixed(arrays, "step1")), undecided)
        else:
            for draw, training in enumerate(others):
                training.toss(tossed, np.random.default_rng([step, draw]))
    check("step5")
