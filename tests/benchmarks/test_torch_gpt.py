"""The rival in PyTorch computes what the recipe computes: a benchmark of two different models would say nothing.

Float32 on a CPU, uncompiled. Budgets come from how far rounding moves our own results (tests/support/rounding.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_autoresearch.config.gpt import GPTConfig
from mlx_autoresearch.config.settings import OptimizerConfig
from tests.support.arrays import load_parity, normal, parity_files, prefixed
from tests.support.rounding import DRAWS, check_within, nudged, rounding, spread
from tests.support.training import Training, gpt, hangs_on_rounding

torch = pytest.importorskip("torch", reason="the rival needs PyTorch, which this package does not")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from torch_gpt import TorchGPT  # noqa: E402
from torch_muon import TorchMuonAdamW, make_step  # noqa: E402

SMALL = {"sequence_len": 24, "vocab_size": 40, "n_layer": 3, "n_head": 4, "n_kv_head": 2, "n_embd": 32}
SWITCHES = (
    *({}, {"mlp": "swiglu"}, {"mlp": "gelu"}, {"softcap": None}, {"embedding_norm": False}, {"value_embeds": False}),
    *({"window_pattern": [0, 5, "L"]}, {"n_kv_head": 4}),
)


@pytest.fixture(autouse=True)
def on_the_cpu() -> Iterator[None]:
    """Where both compute float32 products with all digits."""
    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    yield
    mx.set_default_device(before)


def rival(config: dict[str, Any], weights: dict[str, Any], attention: str = "mask") -> TorchGPT:
    model = TorchGPT(GPTConfig(**config), torch.float32, attention, "cpu")
    model.load_state_dict({name: torch.tensor(np.array(a)) for name, a in weights.items()}, strict=True)
    return model


def drawn(config: dict[str, Any]) -> dict[str, mx.array]:
    """Weights under the rival's own names, every projection at random, so that nothing hides behind a zero."""
    model = TorchGPT(GPTConfig(**config), torch.float32, "mask", "cpu")
    return {name: normal(tuple(p.shape), i, 0.2) for i, (name, p) in enumerate(model.named_parameters())}


def arrays_of(named: Any) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy().copy() for name, tensor in named}


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_logits_loss_and_gradients(switches: dict[str, Any]) -> None:
    config = SMALL | switches
    weights = drawn(config)
    tokens = np.random.default_rng(0).integers(0, 40, (2, 25))
    tokens[1, 20:] = 7
    x, y = tokens[:, :-1], np.where(tokens[:, 1:] == 7, -1, tokens[:, 1:])

    def ours(weights: dict[str, mx.array]) -> dict[str, mx.array]:
        model = gpt(config, weights)
        loss, gradients = nn.value_and_grad(model, model.loss)(mx.array(x), mx.array(y))
        return {"logits": model(mx.array(x)), "loss": loss} | dict(tree_flatten(gradients))

    model = rival(config, weights)
    loss = model(torch.tensor(x), torch.tensor(y))
    loss.backward()
    theirs = {"logits": model.logits(torch.tensor(x)).detach().numpy(), "loss": loss.detach().numpy()}
    theirs |= {name: p.grad.numpy() for name, p in model.named_parameters()}
    check_within(theirs, ours(weights), rounding(ours, weights))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_windows_by_flex_attention_are_those_of_the_mask() -> None:
    config = SMALL | {"window_pattern": [0, 5, "L"]}
    weights = drawn(config)
    x = torch.tensor(np.random.default_rng(0).integers(0, 40, (2, 24)))
    with torch.no_grad():
        mask, flex, causal = (rival(config, weights, kind).logits(x) for kind in ("mask", "flex", "causal"))
    torch.testing.assert_close(flex, mask)
    assert not torch.allclose(causal, mask), "the windows change nothing"


@pytest.mark.parametrize("path", parity_files("losses"), ids=lambda p: p.stem)
def test_one_and_five_optimizer_steps(path: Path) -> None:
    """On the reference's batches and schedule, from its weights."""
    meta, arrays = load_parity(path)
    init = dict(prefixed(arrays, "init"))
    ours, *others = (
        Training(meta, w) for w in (init, *({n: nudged(p, d) for n, p in init.items()} for d in range(DRAWS)))
    )
    model = rival(meta["config"], init)
    optimizer = TorchMuonAdamW(model, OptimizerConfig(**meta["optimizer"]), torch.float32, compiled=False)
    torch_step = make_step(model, optimizer, 1, compiled=False)
    losses: list[float] = []
    undecided = {name: np.zeros(p.shape, bool) for name, p in init.items()}
    for step in range(len(arrays["losses"])):
        tokens = arrays["tokens"][step]
        for training in (ours, *others):
            training.step(mx.array(tokens[:, :-1]), mx.array(tokens[:, 1:]), step)
        optimizer.lr.fill_(meta["lr_multiplier"][step])
        optimizer.momentum.fill_(meta["muon_momentum"][step])
        optimizer.decay.fill_(meta["muon_weight_decay"][step] / meta["optimizer"]["weight_decay"])
        batch = torch.tensor(tokens.astype(np.int64))
        losses.append(torch_step(iter([(batch[:, :-1], batch[:, 1:])])))
        tossed = {name: hangs_on_rounding(name, ours, others) for name in undecided}
        undecided = {name: u | tossed[name] for name, u in undecided.items()}
        theirs = arrays_of(model.named_parameters())
        if step == 0 or step == len(arrays["losses"]) - 1:
            check(theirs | {"losses": np.array(losses)}, ours, others, undecided)
        if step == 0:
            for training in (ours, *others):  # so that all go on as the rival does
                training.adopt(theirs, undecided)
        else:
            for draw, training in enumerate(others):
                training.toss(tossed, np.random.default_rng([step, draw]))


def test_bfloat16_keeps_float32_masters_and_trains() -> None:
    torch.manual_seed(0)
    model = TorchGPT(GPTConfig(**SMALL), torch.bfloat16, "mask", "cpu")
    optimizer = TorchMuonAdamW(model, OptimizerConfig(), torch.bfloat16, compiled=False)
    step = make_step(model, optimizer, 2, compiled=False)
    tables = {name for name, p in model.named_parameters() if p.dtype == torch.bfloat16}
    assert {name.split(".")[0] for name in tables} == {"transformer", "value_embeds"}, "embedding tables and no others"
    x = torch.arange(24).repeat(2, 1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = [step(iter([(x, x)] * 2)) for _ in range(5)]
    assert losses[0] == pytest.approx(np.log(40), rel=0.01)
    assert losses[-1] < losses[0] - 0.5
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []


def check(theirs: dict[str, Any], ours: Training, others: list[Training], undecided: dict[str, np.ndarray]) -> None:
    """All but what hangs on a sign that rounding decides."""
    skipped = sum(int(u.sum()) for u in undecided.values())
    assert skipped <= 0.1 * sum(u.size for u in undecided.values()), "too many left out to prove anything"
    expected, *nearby = (t.parameters() | {"losses": np.array(t.losses)} for t in (ours, *others))
    theirs, expected, *nearby = (
        {name: np.where(undecided.get(name, False), 0, a) for name, a in results.items()}
        for results in (theirs, expected, *nearby)
    )
    check_within(theirs, expected, spread(expected, nearby))
