"""Metal's functions mean what Metal says, and both passes know the same ones."""

from __future__ import annotations

import re
from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest

from mlx_autoresearch.simulator import metal_kernel, simulate
from mlx_autoresearch.simulator.build import SHIM
from tests.support.compiler_paths import needs_compiler

LANES = np.arange(32)
X = np.random.default_rng(1).integers(1, 9, 32).astype(np.float32)


def each_lane(expression: str, x: np.ndarray = X, dtype: str = "float32") -> np.ndarray:
    """The expression's value in each of 32 lanes; it sees x[i], i and lane."""
    body = f"const uint i = thread_position_in_grid.x, lane = i % 32;\n(void)lane;\ny[i] = {expression};"
    kernel = metal_kernel("lanes", ["x"], ["y"], body)
    call = {"output_shapes": [x.shape], "output_dtypes": [dtype], "grid": (32, 1, 1), "threadgroup": (32, 1, 1)}
    return simulate(kernel, [x], static_pass=False, **call)[0]


QUADS = X.reshape(8, 4)
SIMD: dict[str, np.ndarray] = {
    "simd_sum(x[i])": np.full(32, X.sum()),
    "simd_max(x[i])": np.full(32, X.max()),
    "simd_min(x[i])": np.full(32, X.min()),
    "float(simd_product(double_of(x[i])))": np.full(32, 2.0**32),
    "float(simd_and(uint(x[i])))": np.full(32, np.bitwise_and.reduce(X.astype(int))),
    "float(simd_xor(uint(x[i])))": np.full(32, np.bitwise_xor.reduce(X.astype(int))),
    "simd_prefix_inclusive_sum(x[i])": X.cumsum(),
    "simd_prefix_exclusive_sum(x[i])": X.cumsum() - X,
    "simd_broadcast(x[i], 5)": np.full(32, X[5]),
    "simd_broadcast_first(x[i])": np.full(32, X[0]),
    "simd_shuffle(x[i], ushort(31 - lane))": X[::-1],
    "simd_shuffle_xor(x[i], 9)": X[LANES ^ 9],
    "simd_shuffle_down(x[i], 3)": np.concatenate([X[3:], X[29:]]),
    "simd_shuffle_up(x[i], 3)": np.concatenate([X[:3], X[:29]]),
    "simd_shuffle_rotate_down(x[i], 3)": np.roll(X, -3),
    "simd_shuffle_rotate_up(x[i], 3)": np.roll(X, 3),
    "simd_shuffle_and_fill_up(x[i], -1.0f, 2)": np.concatenate([[-1, -1], X[:30]]),
    "quad_sum(x[i])": QUADS.sum(1).repeat(4),
    "quad_max(x[i])": QUADS.max(1).repeat(4),
    "quad_broadcast(x[i], 2)": QUADS[:, 2].repeat(4),
    "quad_shuffle_xor(x[i], 1)": QUADS[:, [1, 0, 3, 2]].reshape(-1),
    "float(ulong(simd_ballot(lane % 3 == 0)) >> lane & 1)": LANES % 3 == 0,
    "float(simd_any(lane == 3))": np.full(32, 1.0),
    "float(simd_all(lane < 31))": np.full(32, 0.0),
    "float(simd_is_first())": LANES == 0,
}


@needs_compiler
@pytest.mark.parametrize("expression", SIMD)
def test_simdgroup_and_quad_operations(expression: str) -> None:
    source = expression.replace("double_of(x[i])", "float(2 * (x[i] > 0))")
    np.testing.assert_array_equal(each_lane(source), SIMD[expression].astype(np.float32))


MATH: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp2(-x[i])": lambda x: 2.0**-x,
    "fast::exp(-x[i])": lambda x: np.exp(-x),
    "rsqrt(x[i])": lambda x: x**-0.5,
    "metal::precise::tanh(0.1f * x[i])": lambda x: np.tanh(0.1 * x),
    "fma(x[i], 2.0f, 1.0f)": lambda x: 2 * x + 1,
    "pow(x[i], 2)": lambda x: x**2,
    "clamp(x[i], 3.0f, 5.0f)": lambda x: np.clip(x, 3, 5),
    "select(1.0f, 2.0f, x[i] > 4)": lambda x: np.where(x > 4, 2.0, 1.0),
    "float(popcount(uint(x[i])) + clz(uint(x[i])))": lambda x: np.array(
        [bin(int(v)).count("1") + 32 - int(v).bit_length() for v in x]
    ),
    "float(abs(int(x[i]) - 5)) + max(1, 2)": lambda x: np.abs(x - 5) + 2,
    "dot(float4(x[i], 1, 2, 3), float4(2.0f).wzyx)": lambda x: 2 * x + 12,
    "float3(x[i], 1, 2).zyx[2] + float2(1, 2).yx[0]": lambda x: x + 2,
    "length(float2(3, 4)) * x[i]": lambda x: 5 * x,
    "as_type<float>(as_type<uint>(x[i]))": lambda x: x,
    "float(half(x[i]) * 0.5h) + float(bfloat(x[i]) / bfloat(2))": lambda x: x,
    "any(float2(x[i], 0) > 8.5f) ? 1.0f : Limits<float>::max - INFINITY == 0 ? 0.0f : 2.0f": lambda x: 2 + 0 * x,
    "x[i] * 2.5": lambda x: 2.5 * x,
    "float(char(-x[i])) + float(char(255) < 0)": lambda x: 1 - x,
}


@needs_compiler
@pytest.mark.parametrize("expression", MATH)
def test_math(expression: str) -> None:
    np.testing.assert_allclose(each_lane(expression), MATH[expression](X.astype(np.float64)), rtol=1e-6)


@needs_compiler
def test_bfloat_rounds_like_mlx_after_every_operation() -> None:
    x = np.random.default_rng(0).standard_normal(32).astype(np.float32)
    y = each_lane("float(bfloat(x[i]) * bfloat(x[i]) + bfloat(1.0f))", x)
    b = mx.array(x).astype(mx.bfloat16)
    np.testing.assert_array_equal(y, np.array((b * b + mx.array(1, mx.bfloat16)).astype(mx.float32)))


MATRIX = """
simdgroup_matrix<T, 8, 8> A, B;
simdgroup_matrix<float, 8, 8> C(2.0f);
simdgroup_load(A, a, 8);
simdgroup_load(B, b, 16, ulong2(8, 0), true);
simdgroup_multiply_accumulate(C, A, B, C);
simdgroup_store(C, c, 8);
if (thread_index_in_simdgroup == 9)
  lane9[0] = C.thread_elements()[0], lane9[1] = C.thread_elements()[1];
"""


@needs_compiler
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_simdgroup_matrices_and_apples_lane_layout(dtype: mx.Dtype) -> None:
    source = np.random.default_rng(0)
    a = mx.array(source.integers(-4, 5, (8, 8)).astype(np.float32)).astype(dtype)
    b = mx.array(source.integers(-4, 5, (8, 16)).astype(np.float32)).astype(dtype)
    kernel = metal_kernel("matrices", ["a", "b"], ["c", "lane9"], MATRIX)
    c, lane9 = simulate(
        kernel,
        [a, b],
        template=[("T", dtype)],
        output_shapes=[(8, 8), (2,)],
        output_dtypes=[mx.float32, mx.float32],
        grid=(32, 1, 1),
        threadgroup=(32, 1, 1),
    )
    expected = a.astype(mx.float32) @ b[:, 8:].astype(mx.float32).T + 2 * mx.eye(8)
    assert mx.array_equal(c, expected)
    # Lane 9: row 4 (9 / 16) + (9 / 2) % 4 = 0, columns 4 (9 / 8 % 2) + 2 (9 % 2) = 6 and 7.
    assert mx.array_equal(lane9, expected[0, 6:8])


def test_the_static_pass_declares_what_the_shim_defines() -> None:
    def names(*files: str) -> set[str]:
        text = "".join((SHIM / file).read_text() for file in files)
        return set(re.findall(r"\b((?:simd|quad|simdgroup|atomic|elem_to_loc)_\w+)\b", text))

    runnable = names("collectives.h", "quads.h", "matrix.h", "atomics.h", "mlx.h", "functions.def", "math.h")
    assert runnable - {"simd_", "quad_", "simd_and", "simd_or"} <= names("lint.h", "functions.def")
