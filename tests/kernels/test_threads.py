"""A GPU that takes fewer threads than a kernel asks for: it gets fewer where its description leaves the number open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import pytest

from mlx_autoresearch.config.load import validate_config
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels import launch, tuning
from mlx_autoresearch.kernels.launch import BrokenKernel, try_out
from mlx_autoresearch.kernels.registry import find_kernel
from mlx_autoresearch.kernels.threads import open_size, smallest
from mlx_autoresearch.kernels.tuning import measure
from mlx_autoresearch.recipe.kernels.cross_entropy import softcapped_cross_entropy
from mlx_autoresearch.recipe.loss import _OPERATION
from mlx_autoresearch.training.setup import choose_kernels, make_model
from tests.support.mac.metal import fake_metal

FORWARD, BACKWARD = "softcapped_cross_entropy_forward", "softcapped_cross_entropy_backward"
pytestmark = pytest.mark.usefixtures("mac", "fresh")


@pytest.fixture
def fresh() -> Iterator[None]:
    yield
    for cached in (launch._launcher, launch._built, launch._threads_on_metal):
        cached.cache_clear()


def loss(rows: int, V: int) -> mx.array:
    return softcapped_cross_entropy(mx.zeros((rows, V)), mx.zeros(rows, mx.int32), 15.0, implementation="metal")[0]


def test_threads_are_found_once_for_a_template_and_used_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """More chunks of a row for each thread: another template, which may take fewer still."""
    limits = {1: 384, 2: 256}  # by how often a thread comes back for more
    launched = fake_metal(monkeypatch, set(), most_threads=lambda _, template: limits.get(template["CHUNKS"], 1024))
    for rows in (3, 5, 7, 3):
        mx.eval(loss(rows, 16384))
    assert launched == [(FORWARD, 512), (FORWARD, 384), (FORWARD, 256), *[(FORWARD, 256)] * 4]


def test_a_compiled_step_has_the_threads_that_were_found(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = fake_metal(monkeypatch, set(), most_threads=lambda *_: 160)
    labels = mx.zeros(4, mx.int32)
    step = mx.compile(mx.grad(lambda z: softcapped_cross_entropy(z, labels, 15.0, implementation="metal")[0].sum()))
    mx.eval(step(mx.zeros((4, 16384))))
    mx.eval(step(mx.ones((4, 16384))))
    assert {name for name, _ in launched} == {FORWARD, BACKWARD}
    assert launched[-1][1] == 160 and [threads for _, threads in launched].count(512) == 2


def test_what_fits_is_launched_as_described(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = fake_metal(monkeypatch, set())
    mx.eval(loss(3, 257), loss(4, 257))
    assert launched == [(FORWARD, 64)] * 3


def test_the_launch_to_see_is_a_small_one() -> None:
    file = find_kernel(FORWARD)
    sizes: dict[str, Any] = {"rows": 8192, "V": 50304, "N": 4, "softcap": 15, "capped": True, "dtype": "float32"}
    assert smallest(file, sizes) == sizes | {"rows": 1, "softcap": 1}
    assert open_size(file) == "threads" and open_size(find_kernel("flash_attention_dq")) is None


def test_auto_measures_the_kernel_with_fewer_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_metal(monkeypatch, set(), most_threads=lambda *_: 128)
    monkeypatch.setattr(tuning, "SECONDS", 0.0)
    arrays = (mx.zeros((8, 16)), mx.zeros((16384, 16)), mx.zeros(8, mx.int32), mx.ones(8))
    measured = measure(_OPERATION, arrays, {"softcap": 15.0}, "metal")
    assert measured["metal"].failure in (None, "its results are wrong")  # the results are zeros
    assert measured["metal"].milliseconds is not None


def test_a_kernel_whose_threads_are_fixed_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_metal(monkeypatch, set(), most_threads=lambda name, _: 96 if name == "flash_attention_dq" else 1024)
    sizes = {"B": 1, "T": 64, "H": 2, "Hk": 2, "D": 64, "window": -1, "dtype": "float32"}
    with pytest.raises(BrokenKernel) as broken:
        try_out(("flash_attention_dq", "metal", tuple(sorted(sizes.items()))))
    assert str(broken.value) == (
        "flash_attention_dq on metal: a threadgroup has 128 threads, and this GPU takes 96 that need so many "
        "registers; kernels: mlx avoids it"
    )


def test_training_ends_in_that_line(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_metal(monkeypatch, set(), most_threads=lambda name, _: 96 if name == "flash_attention_dq" else 1024)
    model = {"n_layer": 2, "n_head": 2, "n_embd": 64, "sequence_len": 64}
    train = {"total_batch_size": 256, "device_batch_size": 2}
    config = validate_config({"model": model, "train": train, "kernels": "custom"}, "the test")
    from mlx_autoresearch.recipe import interface

    made = make_model(config)
    with pytest.raises(UserError, match=r"flash_attention_dq on metal: .*kernels: mlx avoids it") as error:
        choose_kernels(made, interface.make_optimizer(made, config.for_recipe()), config)
    assert "\n" not in str(error.value)
