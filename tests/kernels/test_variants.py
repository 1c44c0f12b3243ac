"""An operation whose kernels can share out the work in several ways: each is measured, and the best is used."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_autoresearch.kernels import choice, tuning
from mlx_autoresearch.kernels.choice import FILE, measuring
from mlx_autoresearch.kernels.operation import Operation, recording
from mlx_autoresearch.kernels.tuning import Measurement, best
from tests.support.fake_gpu import fake_gpu

X = mx.arange(6.0).reshape(2, 3)
SHAPE = "double float32[2,3]"


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "SECONDS", 0.0)


def doubling(custom: Callable[..., Any], variants: dict[str, tuple[str, ...]]) -> Operation:
    return Operation("double", lambda x: 2 * x, custom, (0,), lambda x: (mx.ones(x.shape),), variants=variants)


def test_the_best_variant_is_used_and_remembered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """One whose kernel fails is left out and told; the others go on."""
    fake_gpu(monkeypatch, tmp_path)
    used: list[str | None] = []

    def custom(x: mx.array, *, language: str, variant: str | None = None) -> mx.array:
        used.append(variant)
        if variant == "broken":
            raise RuntimeError("it does not compile")
        return 2 * x

    double = doubling(custom, {"cuda": ("broken", "narrow")})
    milliseconds = {"mlx": 3.0, "cuda": 2.0, "cuda broken": 0.1, "cuda narrow": 1.0}
    measure = tuning.measure

    def measured(*given: object) -> dict[str, tuning.Measurement]:
        found = measure(*given)  # type: ignore[arg-type]
        return {name: replace(side, milliseconds=milliseconds[name]) for name, side in found.items()}

    monkeypatch.setattr(choice, "measure", measured)
    with measuring(), recording() as told:
        double(X)
    assert told == {SHAPE: "cuda narrow"}
    (warning,) = recwarn.list
    assert str(warning.message) == "kernels: double on cuda broken: it does not compile; cuda narrow is used"
    assert json.loads((tmp_path / FILE).read_text()).popitem()[1][SHAPE]["chosen"] == "cuda narrow"
    used.clear()
    double(X)
    double(X, implementation="custom")
    assert used == ["narrow", None]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ((3.0, 2.0, 1.0), "cuda narrow"),
        ((3.0, 1.0, 2.0), "cuda"),
        ((1.0, 3.0, 2.0), "mlx"),
        ((None, 2.0, 1.0), "cuda narrow"),
        ((3.0, None, 1.0), "cuda narrow"),
        ((3.0, 1.0, None), "cuda"),
        ((None, None, None), "mlx"),
    ],
)
def test_the_best_of_several_variants(times: tuple, expected: str) -> None:
    """None: it failed."""
    failed = Measurement(failure="out of memory")
    sides = [failed if time is None else Measurement(time, 10.0) for time in times]
    assert best(dict(zip(("mlx", "cuda", "cuda narrow"), sides, strict=True))) == expected


def test_every_variant_is_timed_and_checked_by_itself() -> None:
    def custom(x: mx.array, language: str, variant: str | None = None) -> mx.array:
        return {None: 2, "right": 2, "wrong": 3}[variant] * x

    operation = doubling(custom, {"cuda": ("right", "wrong"), "metal": ("other",)})
    measured = tuning.measure(operation, (X,), {}, "cuda")
    assert list(measured) == ["mlx", "cuda", "cuda right", "cuda wrong"]
    assert [side.failure for side in measured.values()] == [None, None, None, "its results are wrong"]
    assert operation.run("cuda wrong", (X,), {}).tolist() == (3 * X).tolist()
