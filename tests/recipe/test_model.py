from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_autoresearch.config.gpt import GPTConfig
from mlx_autoresearch.recipe.model import GPT
from tests.support.arrays import normal, relative_error
from tests.support.rounding import check_within, rounding

SMALL = {"sequence_len": 24, "vocab_size": 40, "n_layer": 3, "n_head": 4, "n_kv_head": 2, "n_embd": 32}


def small(**changes) -> GPT:
    """A small model with every projection drawn at random, so that nothing hides behind a zero."""
    mx.random.seed(0)
    model = GPT(GPTConfig(**(SMALL | changes)), compute_dtype=mx.float32)
    model.load_weights([(n, normal(p.shape, i, 0.2)) for i, (n, p) in enumerate(tree_flatten(model.parameters()))])
    return model


def shapes(model: GPT) -> dict[str, tuple[int, ...]]:
    return {name: p.shape for name, p in tree_flatten(model.parameters())}


def ids(B: int = 2, T: int = 24, seed: int = 0) -> mx.array:
    return mx.array(np.random.default_rng(seed).integers(0, 40, (B, T)))


@pytest.mark.parametrize("changes", [{}, {"window_pattern": [3, "L"]}, {"mlp": "swiglu"}, {"value_embeds": False}])
def test_later_tokens_do_not_matter(changes) -> None:
    model, x = small(**changes), ids()
    before = model(x)
    altered = mx.concatenate([x[:, :10], (x[:, 10:] + 1) % 40], axis=1)
    after = model(altered)
    assert mx.array_equal(before[:, :10], after[:, :10])
    assert not mx.array_equal(before[:, 10:], after[:, 10:])


@pytest.mark.parametrize(
    "changes",
    [
        {"mlp": "swiglu"},
        {"mlp": "gelu"},
        {"softcap": None},
        {"softcap": 2.0},
        {"embedding_norm": False},
        {"value_embeds": False},
        {"window_pattern": [2, 5]},
        {"n_kv_head": 4},
        {"n_kv_head": 1},
    ],
    ids=str,
)
def test_every_switch_changes_the_model_and_trains(changes) -> None:
    model, x = small(**changes), ids()
    default = small()
    if shapes(model) == shapes(default):
        assert relative_error(model(x), default(x)) > 1e-3, "the switch does nothing"
    y = ids(seed=1)
    loss = model.loss(x, y)
    logits = np.array(model(x), np.float64)
    expected = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, np.array(y)[..., None], -1)[..., 0]
    assert loss.item() == pytest.approx(expected.mean(), rel=1e-5)
    gradients = dict(tree_flatten(nn.value_and_grad(model, model.loss)(x, y)[1]))
    assert gradients.keys() == shapes(model).keys()
    for name, g in gradients.items():
        assert mx.abs(g).max().item() > 0, f"{name} gets no gradient"


def test_gradients_against_finite_differences() -> None:
    model, x, y = small(), ids(), ids(seed=1)
    flat = dict(tree_flatten(model.trainable_parameters()))
    slopes = dict(tree_flatten(nn.value_and_grad(model, model.loss)(x, y)[1]))
    for seed, name in enumerate(sorted(flat)):
        direction = normal(flat[name].shape, seed)
        h = 1e-2 / mx.linalg.norm(direction.reshape(-1)).item()
        losses = []
        for sign in (1, -1):
            model.load_weights([(name, flat[name] + sign * h * direction)], strict=False)
            losses.append(model.loss(x, y).item())
        model.load_weights([(name, flat[name])], strict=False)
        slope = (losses[0] - losses[1]) / (2 * h)
        assert slope == pytest.approx((slopes[name] * direction).sum().item(), rel=0.03, abs=0.02), name


def test_a_fresh_model_guesses_uniformly() -> None:
    """Zero projections leave the embedding, and a tiny head turns it into almost equal logits."""
    mx.random.seed(1)
    model = GPT(GPTConfig(**SMALL), compute_dtype=mx.float32)
    assert model.loss(ids(), ids(seed=1)).item() == pytest.approx(np.log(40), abs=0.01)


def test_the_seed_decides_the_weights() -> None:
    def weights(seed: int) -> list:
        mx.random.seed(seed)
        return [p for _, p in tree_flatten(GPT(GPTConfig(**SMALL), compute_dtype=mx.float32).parameters())]

    first, again, other = weights(1), weights(1), weights(2)
    assert all(mx.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(mx.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_initial_standard_deviations() -> None:
    mx.random.seed(3)
    model = GPT(GPTConfig(sequence_len=8, vocab_size=500, n_layer=2, n_head=2, n_kv_head=2, n_embd=128))
    std = {name: float(np.array(p).std()) for name, p in tree_flatten(model.parameters())}
    assert std["transformer.wte.weight"] == pytest.approx(1.0, rel=0.05)
    assert std["lm_head.weight"] == pytest.approx(0.001, rel=0.05)
    for name in ("transformer.h.0.attn.c_q.weight", "transformer.h.1.mlp.c_fc.weight", "value_embeds.1.weight"):
        assert std[name] == pytest.approx(128**-0.5, rel=0.05)
    for name in ("transformer.h.0.attn.c_proj.weight", "transformer.h.0.mlp.c_proj.weight"):
        assert std[name] == 0
    assert "value_embeds.0.weight" not in std, "value embeddings sit on alternating layers, the last included"


def test_shorter_and_longer_rows_than_sequence_len_run() -> None:
    model = small()
    weights = dict(tree_flatten(model.parameters()))

    def first_seven(weights: dict[str, mx.array], T: int = 24) -> dict[str, mx.array]:
        model.load_weights(list(weights.items()))
        return {"logits": model(ids(T=24)[:, :T])[:, :7]}

    check_within(first_seven(weights, 7), first_seven(weights), rounding(first_seven, weights))
    assert model(ids(T=60)).shape == (2, 60, 40)


@pytest.mark.parametrize("break_it", ["missing", "unexpected", "shape"])
def test_reference_weights_that_do_not_fit_are_named(break_it) -> None:
    model = small()
    weights = {f"_orig_mod.{name}": np.array(p) for name, p in tree_flatten(model.parameters())}
    model.load_reference_weights(weights)  # with torch.compile's prefix
    name = "_orig_mod.lm_head.weight"
    if break_it == "missing":
        del weights[name]
    elif break_it == "unexpected":
        weights["lm_head.bias"] = np.zeros(3)
    else:
        weights[name] = np.zeros((3, 3))
    with pytest.raises(ValueError, match="lm_head"):
        model.load_reference_weights(weights)
