"""`auto` measures each implementation once, takes the better one that is right, and remembers."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_autoresearch.config.load import load_config
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels import tuning
from mlx_autoresearch.kernels.operation import Operation, recording
from mlx_autoresearch.kernels.tuning import Choice, KernelWarning, Measurement
from mlx_autoresearch.machine import device
from mlx_autoresearch.training.tune import choices_text, tune

X = mx.arange(6.0).reshape(2, 3)


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose GPU speaks CUDA, as far as the choice is concerned, with nothing measured yet."""
    monkeypatch.setattr(device, "kernel_backend", lambda: "cuda")
    monkeypatch.setattr(tuning, "_SECONDS", 0.0)
    tuning.forget(tuning.choices())
    yield
    tuning.forget(tuning.choices())


class Double:
    """Twice the array, with what may go wrong; counts its calls."""

    def __init__(self, factor: float = 2.0, slow: float = 0.0, error: BaseException | None = None):
        self.factor, self.slow, self.error, self.calls = factor, slow, error, 0

    def __call__(self, x: mx.array, **_: object) -> mx.array:
        self.calls += 1
        if self.error is not None:
            raise self.error
        time.sleep(self.slow)
        return self.factor * x


def operation(composed: Double, custom: Double) -> Operation:
    return Operation("double", composed, custom, (0,), lambda x, **_: (mx.ones(x.shape, x.dtype),))


def test_measures_once_and_remembers(capsys: pytest.CaptureFixture[str]) -> None:
    composed, custom = Double(), Double()
    first = operation(composed, custom)
    assert first(X).tolist() == (2 * X).tolist()
    calls = composed.calls, custom.calls
    assert min(calls) >= 1
    assert list(tuning.choices()) == ["double float32[2,3]"]
    assert capsys.readouterr().err == "kernels: measuring double float32[2,3] (once on this machine)\n"
    first(X)
    tuning._known.cache_clear()  # as a new process finds it
    first(X)
    assert composed.calls + custom.calls == sum(calls) + 2  # one call each to compute, none to measure
    first(mx.ones((3, 3)))
    assert list(tuning.choices()) == ["double float32[2,3]", "double float32[4,3]"]


def test_the_batch_counts_by_its_power_of_two() -> None:
    both = operation(Double(), Double())
    for rows in (5, 6, 7, 8):
        both(mx.ones((rows, 3)))
    assert list(tuning.choices()) == ["double float32[8,3]"]


@pytest.mark.parametrize(
    ("custom", "message"),
    [
        (Double(factor=2.1), "its results are wrong"),
        (Double(factor=float("nan")), "its results are wrong"),
        (Double(error=RuntimeError("does not compile")), "does not compile"),
        (Double(error=ValueError("[double] expected 4")), "expected 4"),
    ],
)
def test_a_wrong_kernel_is_never_chosen(custom: Double, message: str) -> None:
    with pytest.warns(KernelWarning, match=message):
        result = operation(Double(), custom)(X)
    assert result.tolist() == (2 * X).tolist()
    assert next(iter(tuning.choices().values())).chosen == "mlx"


def test_what_is_measured_is_the_result_and_every_gradient() -> None:
    both = Operation("scaled", lambda x, y, n: 2 * x * y.sum(), Double(), (1,), lambda x, y: (x, y))
    for differentiable, shapes in (((), [(2, 3)]), ((1,), [(2, 3), (4,)]), ((0, 1), [(2, 3), (2, 3), (4,)])):
        call = tuning._forward_backward(
            replace(both, differentiable=differentiable), "mlx", (X, mx.ones((4,))), (X,), {"n": 1}
        )
        assert [array.shape for array in call()] == shapes


def test_what_is_measured_draws_no_random_numbers() -> None:
    """They would cost both sides the same, and so hide by how much one is better."""
    pair = Operation("pair", lambda x: (2 * x, x.sum()), Double(), (0,), lambda x: (x,))
    call = tuning._forward_backward(pair, "mlx", (X,), (X, mx.array(1.0)), {})
    graph = io.StringIO()
    mx.export_to_dot(graph, *call())
    assert "Random" not in graph.getvalue() and "Compiled" in graph.getvalue()


def test_a_wrong_gradient_counts_too() -> None:
    wrong = mx.custom_function(lambda x: 2 * x)
    wrong.vjp(lambda x, cotangent, _: 3 * cotangent)
    both = Operation("double", Double(), lambda x, language: wrong(x), (0,), lambda x: (mx.ones(x.shape),))
    with pytest.warns(KernelWarning, match="wrong"):
        both(X)


def measured(mlx: tuple, cuda: tuple) -> dict[str, Measurement]:
    return {"mlx": Measurement(*mlx), "cuda": Measurement(*cuda)}


@pytest.mark.parametrize(
    ("mlx", "cuda", "better"),
    [
        ((2.0, 10.0), (1.0, 99.0), "cuda"),
        ((1.0, 99.0), (2.0, 10.0), "mlx"),
        ((1.0, 99.0), (1.04, 10.0), "cuda"),
        ((1.04, 10.0), (1.0, 99.0), "mlx"),
        ((None, None, None, "out of memory"), (1.0, 10.0), "cuda"),
        ((1.0, 10.0), (0.5, 10.0, 7.0, "its results are wrong"), "mlx"),
    ],
)
def test_the_better_is_the_faster_or_at_equal_speed_the_smaller(mlx: tuple, cuda: tuple, better: str) -> None:
    assert tuning._better(measured(mlx, cuda), "cuda") == better


def test_measures_inside_a_compiled_gradient() -> None:
    both = operation(Double(), Double())
    step = mx.compile(mx.value_and_grad(lambda x: (both(x) ** 2).sum()))
    value, gradient = step(X)
    assert value.item() == (4 * X * X).sum().item()
    assert gradient.tolist() == (8 * X).tolist()
    assert len(tuning.choices()) == 1


def test_what_is_remembered_survives_another_process_and_garbage() -> None:
    key = "double float32[2,3]"
    tuning._remember(key, Choice("cuda", measured((2.0, 1.0), (1.0, 1.0))))
    other = tuning._read()
    other[tuning._machine()]["from another process"] = other[tuning._machine()][key]
    tuning._write(other)
    tuning._remember("more", Choice("mlx", {}))
    assert set(tuning._read()[tuning._machine()]) == {key, "from another process", "more"}
    for garbage in ("{", "[]", f'{{"{tuning._machine()}": 3}}', f'{{"{tuning._machine()}": {{"a": {{}}}}}}'):
        tuning._file().write_text(garbage)
        tuning._known.cache_clear()
        assert tuning.choices() == {}


def test_a_kernel_that_ends_the_process_is_not_tried_twice(tmp_path: Path) -> None:
    program = """
import os, sys
import mlx_autoresearch
import mlx.core as mx
from mlx_autoresearch.machine import device
from mlx_autoresearch.kernels import tuning
from mlx_autoresearch.kernels.operation import Operation
device.kernel_backend = lambda: "cuda"
crash = Operation("crash", lambda x: 2 * x, lambda x, language: os._exit(9), (0,), lambda x: (mx.ones(x.shape),))
print(crash(mx.ones((2,))).tolist(), [c.measured["cuda"].failure for c in tuning.choices().values()])
"""
    environment = {**os.environ, "MLX_AUTORESEARCH_CACHE": str(tmp_path)}
    runs = [
        subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
        for _ in range(2)
    ]
    assert [run.returncode for run in runs] == [9, 0], runs[1].stderr
    assert runs[1].stdout == "[2.0, 2.0] ['the process did not survive it']\n"


def test_measuring_that_was_stopped_begins_anew() -> None:
    with pytest.raises(KeyboardInterrupt):
        operation(Double(), Double(error=KeyboardInterrupt()))(X)
    assert "double float32[2,3]" not in tuning.choices() | tuning._read()[tuning._machine()]


def test_says_what_was_used_and_refuses_what_is_not_there() -> None:
    both = operation(Double(), Double())
    with recording() as used:
        both(X, implementation="mlx")
        both(X, implementation="custom")
    assert used == {"double float32[2,3]": "cuda"}
    with pytest.raises(ValueError, match=r"\[double\] implementation 'metal' is not available"):
        both(X, implementation="metal")
    with pytest.raises(ValueError, match=r"\[double\] implementation must be one of auto, mlx"):
        both(X, implementation="fast")  # type: ignore[arg-type]


def test_bench_shows_both_sides_of_a_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    def stub(self: Operation, chosen: str, arrays: tuple[mx.array, ...], settings: dict) -> mx.array:
        return self.composed(*arrays, **settings)  # no GPU here: both sides are composed MLX

    monkeypatch.setattr(Operation, "run", stub)
    config = load_config("configs/tiny.yaml")
    choices = tune(config, again=True)
    operations = [what.split()[0] for what in choices]
    residual = {"residual_norm", "mixed_norm"}
    others = {"attention", "embedding", "linear_cross_entropy", "newton_schulz", "norm_rope"}
    assert set(operations) == residual | others
    text = choices_text(choices)
    assert text.count(" ms, ") == 2 * len(choices) and text.count("error 0.") == len(choices)
    assert "attention float32[4,64,2,32] float32[4,64,1,32] float32[4,64,1,32] window=32" in text
    tuning._remember("of another configuration", Choice("mlx", {}))
    assert tune(config, again=False) == choices
    assert tune(config, again=True).keys() == choices.keys()
    assert "of another configuration" in tuning.choices()


def test_bench_says_in_one_line_that_a_cpu_has_nothing_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "kernel_backend", lambda: None)
    with pytest.raises(UserError, match="nothing to choose on a CPU"):
        tune(load_config("configs/tiny.yaml"), again=False)
