"""A kernel that the GPU's compiler refuses: one line or one finding that names it, and the others go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import pytest
from typer.testing import CliRunner

from mlx_autoresearch.cli.app import app
from mlx_autoresearch.config.load import validate_config
from mlx_autoresearch.errors import GPUInterrupted, UserError
from mlx_autoresearch.kernels import launch, tuning
from mlx_autoresearch.kernels.alternatives import Alternatives
from mlx_autoresearch.kernels.choice import choices, chosen_for, measuring
from mlx_autoresearch.kernels.launch import BrokenKernel, first_error, launches, try_out
from mlx_autoresearch.kernels.registry import find_kernel, kernel_names
from mlx_autoresearch.kernels.verify import verify_on_gpu
from mlx_autoresearch.recipe.kernels.rope import rope
from mlx_autoresearch.training.setup import choose_kernels, make_model
from tests.support.mac.errors import COMPILE, INTERACTIVITY
from tests.support.mac.metal import fake_metal

pytestmark = pytest.mark.usefixtures("mac", "fresh")
_FIRST = "program_source:29:10: error: expected unqualified-id"


@pytest.fixture
def fresh() -> Iterator[None]:
    yield
    launch._launcher.cache_clear()
    launch._built.cache_clear()


def test_verify_on_metal_goes_on_after_a_kernel_that_does_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_metal(monkeypatch, {"newton_schulz_gram"})
    done = CliRunner().invoke(app, ["kernels", "verify", "--on", "metal"])
    assert done.exit_code == 1
    assert done.exception is None or isinstance(done.exception, SystemExit)
    lines = done.output.splitlines()
    told = [line for line in lines if "launch-error" in line]
    assert told
    assert all(line.startswith("newton_schulz_gram (") and f": {_FIRST} " in line for line in told)
    assert {name for name in kernel_names() if name in done.output} == set(kernel_names())


@pytest.mark.parametrize("broken", ["newton_schulz_polynomial", "flash_attention_dkdv_pairs", "norm_rope_forward"])
def test_custom_kernels_end_in_a_line_that_names_the_one_that_does_not_compile(
    monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Kernels of the backward pass and of the optimizer as well: all before the first step."""
    fake_metal(monkeypatch, {broken})
    config = validate_config(
        {
            "model": {"n_layer": 2, "n_head": 2, "n_embd": 64, "sequence_len": 64},
            "train": {"total_batch_size": 256, "device_batch_size": 2},
            "kernels": "custom",
        },
        "the test",
    )
    from mlx_autoresearch.recipe import interface

    model = make_model(config)
    optimizer = interface.make_optimizer(model, config.for_recipe())
    with pytest.raises(UserError) as error:
        choose_kernels(model, optimizer, config)
    assert str(error.value) == f"kernels: custom: {broken} on metal: {_FIRST}; kernels: auto chooses what works"


def test_a_kernel_that_compiles_is_tried_out_in_silence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_metal(monkeypatch, {"rope"})
    with launches() as found:
        rope(mx.zeros((1, 8, 2, 64)), implementation="metal")
        rope(mx.zeros((1, 8, 2, 64)), implementation="metal")
    (launched,) = found
    with pytest.raises(BrokenKernel, match="rope"):
        try_out(launched)
    fake_metal(monkeypatch, set())
    try_out(launched)


def test_an_interruption_is_not_a_kernels_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It used to reject the kernel for good, in a trial by a choice that nobody had made."""
    fake_metal(monkeypatch, {"rope"}, INTERACTIVITY)
    monkeypatch.setattr(tuning, "SECONDS", 0.0)
    monkeypatch.setenv("MLX_AUTORESEARCH_CACHE", str(tmp_path))
    x = mx.zeros((1, 8, 2, 64))
    with launches() as found:
        rope(x, implementation="metal")

    def interrupted(x: mx.array, language: str) -> mx.array:
        raise RuntimeError(INTERACTIVITY)

    operation = Alternatives("rope", lambda x: x, interrupted, (), lambda x: (x,))
    for call in (
        lambda: try_out(*found),
        lambda: chosen_for(operation, (x,), {}, "metal"),
    ):
        with pytest.raises(GPUInterrupted, match="macOS stopped the work on the GPU"), measuring():
            call()
    assert choices() == {}
    report = verify_on_gpu(find_kernel("rope"), "metal")
    assert "macOS stopped the work on the GPU" in str(report.findings[0])
    advice = r"it was measuring rope .*: should that happen again, set kernels=mlx"
    with pytest.raises(GPUInterrupted, match=advice), measuring():
        chosen_for(operation, (x,), {}, "metal")


def test_the_compilers_first_error_is_what_is_shown() -> None:
    assert first_error(RuntimeError(COMPILE)) == _FIRST
    assert first_error(RuntimeError("one\ntwo")) == "one"
    assert first_error(ValueError()) == "ValueError"
