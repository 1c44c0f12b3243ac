"""`kernels tune` and `kernels bench`: what they measure of a configuration, and what they show."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import pytest

from mlx_autoresearch.config.load import load_config
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels.choice import choices, measuring
from mlx_autoresearch.kernels.operation import Operation
from mlx_autoresearch.machine import device
from mlx_autoresearch.training.tune import choices_text, tune
from tests.support.fake_gpu import compose_both_sides, fake_gpu
from tests.support.operations import OPERATIONS


def test_bench_shows_both_sides_of_a_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_gpu(monkeypatch, tmp_path)
    compose_both_sides(monkeypatch)
    config = load_config("configs/tiny.yaml")
    chosen = tune(config, again=True)
    assert {what.split()[0] for what in chosen} == OPERATIONS
    text = choices_text(chosen)
    assert text.count(" ms, ") == 2 * len(chosen) and text.count("error 0.") == len(chosen)
    assert "attention bfloat16[4,64,2,32] bfloat16[4,64,1,32] bfloat16[4,64,1,32] window=32" in text
    with measuring():
        Operation("other", lambda x: x, lambda x, language: x, (), lambda x: (x,))(mx.ones((2, 2)))
    assert tune(config, again=False) == chosen
    assert tune(config, again=True).keys() == chosen.keys()
    assert "other float32[2,2]" in choices()


def test_bench_says_in_one_line_that_a_cpu_has_nothing_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "kernel_backend", lambda: None)
    with pytest.raises(UserError, match="nothing to choose on a CPU"):
        tune(load_config("configs/tiny.yaml"), again=False)
