from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlx_autoresearch.machine import device
from mlx_autoresearch.recipe import fastmath
from tests.support.arrays import normal, relative_error


def test_exp_is_accurate_where_it_matters_and_zero_far_below() -> None:
    x = np.concatenate([np.linspace(-20, 0, 20_001), [-1e-7, -1e-30, -0.0]]).astype(np.float32)
    got = np.array(fastmath.exp_nonpositive(mx.array(x)), np.float64)
    assert np.max(np.abs(got / np.exp(x.astype(np.float64)) - 1)) < 1e-5
    far = np.array([-30, -87, -88, -1e4, -1e30, -np.inf], np.float32)
    assert np.max(np.abs(np.array(fastmath.exp_nonpositive(mx.array(far))) - np.exp(far))) < 1e-12
    assert fastmath.exp_nonpositive(mx.array([0.0])).item() == 1.0


def test_tanh_is_accurate_everywhere() -> None:
    magnitudes = np.concatenate([np.logspace(-30, 0, 500), np.linspace(1, 20, 2000), [1e10, np.inf]])
    x = np.concatenate([-magnitudes, magnitudes]).astype(np.float32)
    got = np.array(fastmath.tanh_rational(mx.array(x)), np.float64)
    assert np.max(np.abs(got / np.tanh(x.astype(np.float64)) - 1)) < 5e-7


@pytest.mark.parametrize("function", [fastmath.exp_nonpositive, fastmath.tanh_rational, fastmath.relu2])
def test_nan_stays_nan(function) -> None:
    assert np.isnan(np.array(mx.compile(function)(mx.array([np.nan], mx.float32)))).all()


@pytest.mark.parametrize(
    "function, definition",
    [
        (fastmath.relu2, lambda x: mx.square(mx.maximum(x, 0))),
        (fastmath.silu, lambda x: x * mx.sigmoid(x)),
        (fastmath.gelu, lambda x: 0.5 * x * (1 + mx.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))),
    ],
)
def test_activation_and_its_gradient(function, definition) -> None:
    x, cotangent = normal((33, 65), 0, scale=3.0), normal((33, 65), 1)
    for f in (function, mx.compile(function)):
        assert relative_error(f(x), definition(x)) < 1e-6
    got, expected = (mx.vjp(f, [x], [cotangent])[1][0] for f in (function, definition))
    assert relative_error(got, expected) < 1e-5  # 1 - tanh² cancels


def test_built_in_functions_are_used_where_nothing_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastmath, "use_polynomials", lambda: False)
    x = -mx.abs(normal((100,), 2))
    assert mx.array_equal(fastmath.exp(x), mx.exp(x))
    assert mx.array_equal(fastmath.tanh(x), mx.tanh(x))


@pytest.mark.skipif(not device.cpu_compiler_available(), reason="without g++ mx.compile fuses nothing on a CPU")
def test_chains_are_cut_into_loops_that_compile_fuses(tmp_path) -> None:
    """Two loops for exp, three for tanh: one operation more in a loop, and it falls apart into many."""
    for function, loops in ((fastmath.exp_nonpositive, 2), (fastmath.tanh_rational, 3)):
        path = tmp_path / f"{function.__name__}.dot"
        mx.export_to_dot(str(path), mx.compile(function)(normal((8, 8), 3)))
        primitives = [line for line in path.read_text().splitlines() if "shape=rectangle" in line]
        assert sum("Compiled" in line for line in primitives) == loops
        assert all("Compiled" in p or "ExpandDims" in p or "Squeeze" in p for p in primitives)
