"""Training in float16: as exact as its rounding allows, and a step whose gradients overflow changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from mlx_autoresearch.config.gpt import GPTConfig
from mlx_autoresearch.recipe import loss_scale
from mlx_autoresearch.recipe.loss import linear_cross_entropy
from mlx_autoresearch.recipe.model import GPT
from mlx_autoresearch.recipe.optimizer import MuonAdamW
from mlx_autoresearch.recipe.step import make_step

SHAPE = GPTConfig(sequence_len=12, vocab_size=40, n_layer=2, n_head=2, n_kv_head=1, n_embd=32)


class Trainee:
    """A small model and its step; each token of its batches is the one before it plus 1 or 2."""

    def __init__(self, dtype: mx.Dtype, accumulation_steps: int = 1):
        mx.random.seed(0)
        self.model = GPT(SHAPE, dtype, "mlx")
        # While the projections are zero, many gradients are nothing but rounding, of which AdamW makes whole steps.
        self.model.update(tree_map(lambda p: p + 0.05 * mx.random.normal(p.shape), self.model.parameters()))
        self.optimizer = MuonAdamW.for_gpt(self.model, dtype, "mlx")
        self.optimizer.init(self.model.parameters())
        self._step = make_step(self.model, self.optimizer, accumulation_steps)
        self._batches = self._rows()

    def _rows(self) -> Iterator[tuple[mx.array, mx.array]]:
        source = np.random.default_rng(0)
        while True:
            rows = mx.array(np.cumsum(source.integers(1, 3, (4, 13)), axis=1) % SHAPE.vocab_size)
            yield rows[:, :-1], rows[:, 1:]

    def losses(self, steps: int) -> np.ndarray:
        return np.array([self._step(self._batches).item() for _ in range(steps)])

    @property
    def scaling(self) -> dict[str, Any]:
        return {name: array.item() for name, array in self.optimizer.state[loss_scale.SECTION].items()}

    def set_scale(self, scale: float) -> None:
        self.optimizer.state[loss_scale.SECTION]["scale"] = mx.array(scale)

    def state(self) -> dict[str, np.ndarray]:
        """Weights and all of the optimizer's state but the scale."""
        state = {k: v for k, v in self.optimizer.state.items() if k != loss_scale.SECTION}
        return {n: np.array(a) for n, a in tree_flatten({"model": self.model.parameters(), "optimizer": state})}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_float16_learns_as_float32_does_within_rounding() -> None:
    trained = Trainee(mx.float16)
    half, exact, brain = trained.losses(50), Trainee(mx.float32).losses(50), Trainee(mx.bfloat16).losses(50)
    assert exact[-5:].mean() < 0.5 * exact[0]
    assert half[0] == pytest.approx(exact[0], abs=1e-3)
    assert (np.abs(half - exact) <= 2 * np.maximum.accumulate(np.abs(brain - exact)) + 2e-3).all()
    assert trained.scaling == {"scale": loss_scale.FIRST, "good_steps": 50, "skipped_steps": 0}


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
def test_other_precisions_have_no_scale(dtype: mx.Dtype) -> None:
    trainee = Trainee(dtype)
    trainee.losses(1)
    assert loss_scale.loss_scale(trainee.optimizer.state) is None
    assert loss_scale.SECTION not in trainee.optimizer.state
    assert loss_scale.skipped_steps(trainee.optimizer.state) is None


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_a_step_that_overflows_changes_nothing_and_the_scale_recovers(accumulation_steps: int) -> None:
    trainee = Trainee(mx.float16, accumulation_steps)
    first = trainee.losses(3)
    trainee.set_scale(2.0**40)
    skipped = 0
    while trainee.scaling["good_steps"] != 1:
        before, scale = trainee.state(), trainee.scaling["scale"]
        assert np.isfinite(trainee.losses(1)).all()  # the loss is that of the model, whatever the scale
        taken = trainee.scaling["skipped_steps"] == skipped
        assert same(trainee.state(), before) is not taken
        assert trainee.scaling["scale"] == (scale if taken else min(scale / 2, loss_scale.MOST))
        skipped += not taken
    assert 2 <= skipped <= 20
    assert trainee.optimizer.state["scalars"]["step"].item() == 4
    assert trainee.losses(20)[-5:].mean() < 0.8 * first[0]
    assert trainee.scaling["skipped_steps"] <= skipped + 5  # gradients grow a little


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_one_bad_number_in_one_gradient_is_enough(value: float) -> None:
    trainee = Trainee(mx.float16)
    gradients = tree_map(mx.ones_like, trainee.model.parameters())
    gradients["value_embeds"][-1]["weight"][3, 5] = value
    before = trainee.state()
    loss_scale.update_unless_overflowed(trainee.model, trainee.optimizer, gradients)
    assert same(trainee.state(), before)
    assert trainee.scaling == {"scale": loss_scale.FIRST / 2, "good_steps": 0, "skipped_steps": 1}


def test_an_optimizer_that_changes_arrays_in_place_is_undone_too() -> None:
    trainee = Trainee(mx.float16)

    class InPlace:
        state = trainee.optimizer.state

        def update(self, model: GPT, gradients: dict) -> None:
            self.state["scalars"]["step"] += 1
            model.lm_head.weight += 1
            model.update(tree_map(lambda p, g: p - g, model.parameters(), gradients))

    before, gradients = trainee.state(), tree_map(mx.ones_like, trainee.model.parameters())
    loss_scale.update_unless_overflowed(trainee.model, InPlace(), tree_map(lambda g: g * np.inf, gradients))  # type: ignore
    assert same(trainee.state(), before)
    loss_scale.update_unless_overflowed(trainee.model, InPlace(), gradients)  # type: ignore[arg-type]
    after = trainee.state()
    assert after["optimizer.scalars.step"] == before["optimizer.scalars.step"] + 1
    assert not np.array_equal(after["model.lm_head.weight"], before["model.lm_head.weight"])


def test_a_loop_of_ones_own_gives_the_optimizer_gradients_that_are_not_scaled() -> None:
    """As in the README: the scale is the step's, and neither the model's nor the optimizer's."""
    model = GPT(SHAPE, mx.float16, "mlx")
    optimizer = MuonAdamW.for_gpt(model, mx.float16, "mlx")
    optimizer.update(model, tree_map(mx.ones_like, model.parameters()))
    assert optimizer.state["exp_avg"]["lm_head.weight"][0, 0].item() == pytest.approx(0.2)
    assert loss_scale.loss_scale(optimizer.state) is None


def test_a_model_for_such_a_loop_is_not_in_float16_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpu, dtype in ((True, mx.bfloat16), (False, mx.float32)):
        monkeypatch.setattr("mlx_autoresearch.recipe.model.is_gpu", lambda gpu=gpu: gpu)
        assert GPT(SHAPE).compute_dtype == dtype


def test_the_scale_doubles_after_steps_that_did_not_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "PATIENCE", 3)
    trainee = Trainee(mx.float16)
    gradients = tree_map(mx.zeros_like, trainee.model.parameters())
    trainee.optimizer.update = lambda model, gradients: None  # type: ignore[method-assign]

    def steps(*values: float) -> list[float]:
        scales = []
        for value in values:
            gradients["resid_lambdas"] = mx.array([1.0, value])
            loss_scale.update_unless_overflowed(trainee.model, trainee.optimizer, gradients)
            scales.append(trainee.scaling["scale"] / loss_scale.FIRST)
        return scales

    assert steps(1, 1, 1, 1, 1, 1, 1) == [1, 1, 2, 2, 2, 4, 4]
    assert steps(1, np.inf, 1, 1, 1, 1) == [4, 2, 2, 2, 4, 4]
    assert steps(*[1.0] * 60)[-1] == loss_scale.MOST / loss_scale.FIRST
    assert steps(*[np.nan] * 60)[-1] == loss_scale.LEAST / loss_scale.FIRST
    assert trainee.scaling["skipped_steps"] == 61


def test_gradients_are_unscaled_before_the_update() -> None:
    """AdamW's epsilon and moments are in the units of the gradient: another scale is the same step, to the last bit."""
    states = []
    for scale in (2.0**10, 2.0**14):
        trainee = Trainee(mx.float16)
        waves = tree_map(lambda p: 1e-9 * mx.sin(mx.arange(p.size).reshape(p.shape)), trainee.model.parameters())
        trainee.set_scale(scale)
        gradients = tree_map(lambda g, scale=scale: scale * g, waves)
        loss_scale.update_unless_overflowed(trainee.model, trainee.optimizer, gradients)
        states.append(trainee.state())
    assert same(*states)


def normal(*shape: int, seed: int) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed))


def test_a_scaled_loss_has_scaled_gradients_and_its_own_value() -> None:
    x, w, y = normal(6, 8, seed=0), normal(11, 8, seed=1), mx.array([3, 1, -1, 1, 10, 0])

    def loss(scale: float | None):
        given = None if scale is None else mx.array(scale)
        return mx.value_and_grad(lambda x, w: linear_cross_entropy(x, w, y, 15.0, loss_scale=given), (0, 1))(x, w)

    value, gradients = loss(None)
    scaled_value, scaled = loss(2.0**12)
    assert value.item() == scaled_value.item()
    assert all(mx.array_equal(2.0**12 * a, b) for a, b in zip(gradients, scaled, strict=True))


def test_a_model_whose_loss_knows_no_scale_trains_in_other_precisions() -> None:
    """As somebody's own loss may be: the scale is handed over in float16 alone."""

    class Own(GPT):
        def loss(self, idx: mx.array, targets: mx.array) -> mx.array:  # type: ignore[override]
            return nn.losses.cross_entropy(self(idx), targets, reduction="mean")

    for dtype in (mx.float32, mx.bfloat16):
        model = Own(SHAPE, dtype, "mlx")
        step = make_step(model, MuonAdamW.for_gpt(model, dtype, "mlx"))
        x = mx.arange(12)[None]
        assert np.isfinite(step(iter([(x, x)])).item())


def test_the_scale_comes_before_the_gradients_are_rounded() -> None:
    """Of many tokens each has a small part in the mean: float16 rounds most gradients to 0 without a scale."""
    x, w, y = normal(2**16, 8, seed=0), normal(50, 8, seed=1), mx.arange(2**16) % 50

    def gradient(x: mx.array, scale: float) -> mx.array:
        def loss(x: mx.array) -> mx.array:
            return linear_cross_entropy(x, w, y, 15.0, loss_scale=mx.array(scale)) / 64  # of as many micro-batches

        return mx.grad(loss)(x).astype(mx.float32) / scale

    exact = gradient(x, 1.0)
    errors = [mx.linalg.norm(gradient(x.astype(mx.float16), s) - exact) / mx.linalg.norm(exact) for s in (1.0, 2.0**16)]
    assert errors[1].item() < 2.0**-9 < 2.0**-5 < errors[0].item()
