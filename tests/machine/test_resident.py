"""Scalars that every thread reads: on CUDA in arrays of more than 8 bytes, which MLX keeps in the GPU's own memory."""

from __future__ import annotations

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_autoresearch.config.gpt import GPTConfig
from mlx_autoresearch.machine import resident as module
from mlx_autoresearch.machine.resident import SMALL, constant, resident
from mlx_autoresearch.recipe.model import GPT
from mlx_autoresearch.recipe.optimizer import MuonAdamW


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "kernel_backend", lambda: "cuda")


ARRAYS = [
    mx.array(2.5),
    mx.array([1.5], mx.bfloat16),
    mx.array([[1, -2]], mx.int32),
    mx.array([1, 2, 2**40], mx.uint64),
    mx.array([True]),
]


@pytest.mark.parametrize("x", ARRAYS, ids=lambda x: f"{x.dtype}{x.shape}")
@pytest.mark.usefixtures("cuda")
def test_it_is_the_same_array_cut_out_of_a_larger_one(x: mx.array, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[mx.array] = []
    pad = mx.pad
    monkeypatch.setattr(mx, "pad", lambda *given: made.append(pad(*given)) or made[-1])
    for same in (resident(x), constant(x)):
        assert (same.shape, same.dtype) == (x.shape, x.dtype)
        assert mx.array_equal(same, x)
    assert [larger.nbytes > SMALL for larger in made] == [True, True]


@pytest.mark.usefixtures("cuda")
def test_gradients_pass_through() -> None:
    assert mx.grad(lambda x: 3 * resident(x))(mx.array(1.0)).item() == 3
    assert mx.grad(lambda x: (resident(x) * mx.array([1.0, 2.0])).sum())(mx.array([5.0, 6.0])).tolist() == [1, 2]


def test_elsewhere_nothing_is_copied() -> None:
    x = mx.array(1.0)
    assert resident(x) is x


def train(steps: int) -> list[mx.array]:
    """Losses and parameters of a small model, whose scalars all reach large arrays."""
    mx.random.seed(0)
    model = GPT(
        GPTConfig(n_layer=2, n_head=2, n_kv_head=2, n_embd=32, sequence_len=16, vocab_size=64), mx.float32, "mlx"
    )
    optimizer = MuonAdamW.for_gpt(model, mx.float32, "mlx", weight_decay=0.1)
    ids = mx.random.randint(0, 64, (2, 17))

    def loss_of(parameters: dict) -> mx.array:
        model.update(parameters)
        return model.loss(ids[:, :-1], ids[:, 1:])

    losses = []
    for _ in range(steps):
        loss, gradients = mx.value_and_grad(loss_of)(model.parameters())
        optimizer.update(model, gradients)
        mx.eval(loss, model.parameters(), optimizer.state)
        losses.append(loss)
    return [*losses, *(array for _, array in tree_flatten(model.parameters()))]  # type: ignore[misc]


def test_a_training_step_is_the_same_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    before = train(2)
    monkeypatch.setattr(module, "kernel_backend", lambda: "cuda")
    after = train(2)
    assert all(mx.array_equal(a, b) for a, b in zip(before, after, strict=True))
