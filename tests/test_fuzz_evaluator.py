"""scripts/fuzz_evaluator.py finds nothing wrong with the evaluator, and finds what is wrong with broken ones."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import mlx.core as mx
import numpy as np
import pytest

from mlx_autoresearch.metric import bits

SCRIPT = Path(__file__).parents[1] / "scripts" / "fuzz_evaluator.py"


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_evaluator", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_evaluator"] = module  # where dataclasses look for its types
    spec.loader.exec_module(module)
    return module


def findings(fuzz: ModuleType, cases: int) -> list[str]:
    tally = fuzz.Tally()
    found = [tally.judge(fuzz.make_case(1, number)) for number in range(cases)]
    assert tally.scored > cases // 4
    return [wrong for wrong in found if wrong]


def test_the_evaluator_is_right_about_hostile_logits(fuzz: ModuleType) -> None:
    assert findings(fuzz, 150) == []


def cancels(logits: mx.array, labels: mx.array) -> tuple[mx.array, mx.array]:
    logits = logits.astype(mx.float32)
    nats = mx.logsumexp(logits, axis=-1, keepdims=True) - mx.take_along_axis(logits, labels, axis=-1)
    return nats[:, 0], mx.abs(logits.max(axis=-1)).max()


def adds_one_by_one(logits: mx.array, labels: mx.array) -> tuple[mx.array, mx.array]:
    values = np.array(logits.astype(mx.float32))
    top = values.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", over="ignore"):
        below = values - top
        nats = np.log(np.exp(below).cumsum(axis=-1, dtype=np.float32)[:, -1:])
        nats = nats - np.take_along_axis(below, np.array(labels), axis=-1)
    return mx.array(nats[:, 0]), mx.array(np.abs(top).max())


@pytest.mark.parametrize("broken", [cancels, adds_one_by_one])
def test_broken_arithmetic_is_found(fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch, broken: Callable) -> None:
    monkeypatch.setattr(bits, "_cross_entropy", broken)
    assert any("where float64 says" in wrong for wrong in findings(fuzz, 100))


def test_a_case_is_the_same_again(fuzz: ModuleType) -> None:
    first, second = (fuzz.make_case(3, 5) for _ in range(2))
    assert first.name == second.name
    assert (first.text == second.text).all()
    assert mx.array_equal(first.table, second.table, equal_nan=True).item()
