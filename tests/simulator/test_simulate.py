"""`simulate`: arrays of every kind in and out, and the findings that test_mutations.py does not plant."""

from __future__ import annotations

import threading
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_autoresearch.simulator import KernelFault, UncheckedWarning, metal_kernel, run, simulate
from mlx_autoresearch.simulator.arrays import DTYPES
from mlx_autoresearch.simulator.translation import literals
from tests.support.compiler_paths import compiler_path, needs_clang, needs_compiler, needs_gcc

pytestmark = needs_compiler

INDEX = "const uint i = thread_position_in_grid.x;\n"


def elementwise(body: str, x: Any, dtype: Any = "float32", header: str = "", **call: Any) -> Any:
    """The output y of a kernel body run for each element of x, in threadgroups of 32."""
    kernel = metal_kernel("probe", ["x"], ["y"], INDEX + body, header)
    size = x.size if hasattr(x, "size") else 1
    options: dict[str, Any] = {"grid": (size, 1, 1), "threadgroup": (32, 1, 1)} | call
    return simulate(kernel, [x], output_shapes=[x.shape], output_dtypes=[dtype], **options)[0]


def kinds(fault: KernelFault) -> list[str]:
    return [finding.what for finding in fault.findings]


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name != "bfloat16"])
def test_copies_every_numpy_dtype(dtype: str) -> None:
    x = np.arange(40).astype(dtype)
    y = elementwise("y[i] = x[i];", x, dtype)
    assert isinstance(y, np.ndarray) and y.dtype == x.dtype
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16, mx.int64, mx.uint8, mx.bool_])
def test_copies_mx_arrays_and_returns_them(dtype: mx.Dtype) -> None:
    x = mx.random.normal((5, 8)).astype(dtype)
    y = elementwise("y[i] = x[i];", x, dtype)
    assert isinstance(y, mx.array) and y.dtype == dtype and y.shape == x.shape
    assert mx.array_equal(x, y)


def test_numpy_has_no_bfloat16_and_gets_float32() -> None:
    x = np.linspace(-3, 3, 16, dtype=np.float32)
    y = elementwise("y[i] = bfloat(x[i]);", x, "bfloat16")
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, np.array(mx.array(x).astype(mx.bfloat16).astype(mx.float32)))


def test_numbers_and_init_value() -> None:
    kernel = metal_kernel("numbers", ["a", "n"], ["y"], "if (thread_position_in_grid.x == 0) y[0] = a + float(n);")
    call = {"output_shapes": [(3,)], "output_dtypes": [mx.float32], "grid": (4, 1, 1), "threadgroup": (4, 1, 1)}
    (y,) = kernel(inputs=[0.5, 2], init_value=7, **call)
    np.testing.assert_array_equal(y, [2.5, 7, 7])


def test_strides_of_arrays_that_are_not_contiguous() -> None:
    x = np.arange(24, dtype=np.float32).reshape(4, 6)[1:, ::2]
    body = "y[i] = x[elem_to_loc(i, x_shape, x_strides, x_ndim)];"
    kernel = metal_kernel("strided", ["x"], ["y"], INDEX + body, ensure_row_contiguous=False)
    (y,) = simulate(
        kernel, [x], output_shapes=[x.shape], output_dtypes=["float32"], grid=(9, 1, 1), threadgroup=(9, 1, 1)
    )
    np.testing.assert_array_equal(y, x)


def test_grid_is_clamped_and_partial_threadgroups_run() -> None:
    body = "y[i] = float(threads_per_threadgroup.x + 100 * threadgroups_per_grid.x);"
    y = elementwise(body, np.zeros(70, np.float32))
    np.testing.assert_array_equal(y, [332.0] * 64 + [306.0] * 6)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_orders_show_in_the_order_of_atomics(seed: int) -> None:
    kernel = metal_kernel(
        "ticket", ["x"], ["y"], INDEX + "atomic_store_explicit(&y[0], i, memory_order_relaxed);", atomic_outputs=True
    )
    call = {"output_shapes": [(1,)], "output_dtypes": ["uint32"], "grid": (64, 1, 1), "threadgroup": (8, 1, 1)}
    last = {0: 63, 1: 0}
    (first,) = simulate(kernel, [np.zeros(8, np.float32)], seed=seed, **call)
    (again,) = simulate(kernel, [np.zeros(8, np.float32)], seed=seed, **call)
    assert first == again
    assert first == last.get(seed, first)
    if seed >= 2:
        assert first not in last.values()


def test_a_finding_names_line_thread_count_and_cause() -> None:
    with pytest.raises(KernelFault) as raised:
        elementwise("y[i] = x[i];\nif (i >= 40)\n  y[i + 30] = 0.0f;", np.zeros(64, np.float32))
    (finding,) = [finding for finding in raised.value.findings if finding.what == "device-out-of-bounds"]
    assert (finding.file, finding.line, finding.count) == ("probe.metal", 4, 24)
    assert (finding.thread, finding.threadgroup) == ((8, 0, 0), (1, 0, 0))
    assert "element 70 of y, which has 64" in finding.message
    assert finding.cause in str(raised.value)


def test_lines_of_the_header_are_the_headers() -> None:
    header = "\n\ntemplate <typename P>\nMETAL_FUNC float next(P p, uint i) {\n  return p[i + 1];\n}"
    with pytest.raises(KernelFault) as raised:
        elementwise("y[i] = next(x, i);", np.zeros(64, np.float32), header=header)
    assert (raised.value.findings[0].file, raised.value.findings[0].line) == ("probe.header", 5)


@pytest.mark.parametrize(
    ("body", "header", "expected"),
    [
        ("y[i] = x[i] + undefined;", "", "compile-error"),
        ("counter[0] += 1.0f;\ny[i] = x[i];", "constant float counter[2] = {0.0f, 0.0f};", "static-write"),
        ("threadgroup float t[4], *p;\nt[0] = 0.0f;\ny[i] = t[0];", "", "unsupported"),
    ],
)
def test_findings_about_the_source(body: str, header: str, expected: str) -> None:
    with pytest.raises(KernelFault) as raised:
        elementwise(body, np.zeros(32, np.float32), header=header)
    assert expected in kinds(raised.value)
    assert raised.value.findings[0].line > 0


@needs_gcc
def test_gcc_refuses_lines_that_it_cannot_tell_apart_and_says_what_it_skips() -> None:
    gcc = compiler_path("gcc")
    with pytest.raises(KernelFault) as raised:
        elementwise("y[i] = simd_sum(x[i]) + simd_max(x[i]);", np.zeros(32, np.float32), compiler=gcc)
    assert kinds(raised.value) == ["ambiguous-place"]
    with pytest.warns(UncheckedWarning, match="address spaces"):
        elementwise("y[i] = x[i];", np.zeros(32, np.float32), compiler=gcc)


@needs_clang
def test_the_static_pass_runs_with_simulate() -> None:
    with pytest.raises(KernelFault) as raised:
        elementwise("const device float* p = x;\ny[i] = p[i];", np.zeros(4, np.float32))
    assert kinds(raised.value) == ["constant-address-space"]


def test_the_fast_mode_computes_the_same_and_still_sees_divergence() -> None:
    x = np.random.default_rng(0).standard_normal(96).astype(np.float32)
    body = "y[i] = exp(x[i]) + simd_sum(x[i]);"
    np.testing.assert_array_equal(elementwise(body, x, checked=False), elementwise(body, x))
    with pytest.raises(KernelFault) as raised:
        elementwise("if (i % 2 == 0) threadgroup_barrier(mem_flags::mem_device);\ny[i] = x[i];", x, checked=False)
    assert kinds(raised.value) == ["barrier-divergence"]


def test_a_crash_in_the_fast_mode_ends_the_launch_only() -> None:
    x = np.zeros(32, np.float32)
    with pytest.raises(KernelFault) as raised:
        elementwise("y[i] = x[i + (ulong(i) << 40)];", x, checked=False)
    assert kinds(raised.value) == ["wild-access"]
    np.testing.assert_array_equal(elementwise("y[i] = x[i] + 1.0f;", x), x + 1)


def test_narrow_accesses_to_wide_elements_are_no_race() -> None:
    body = "((device uchar*)y)[i] = uchar(i);"
    kernel = metal_kernel("bytes", ["x"], ["y"], INDEX + body)
    (y,) = simulate(
        kernel,
        [np.zeros(8, np.float32)],
        output_shapes=[(16,)],
        output_dtypes=["uint32"],
        grid=(64, 1, 1),
        threadgroup=(64, 1, 1),
    )
    np.testing.assert_array_equal(y.view(np.uint8), np.arange(64))


def test_unwritten_outputs_may_be_allowed() -> None:
    x = np.zeros(64, np.float32)
    simulation = run(
        metal_kernel("half_written", ["x"], ["y"], INDEX + "if (i < 5) y[i] = x[i];"),
        [x],
        output_shapes=[(64,)],
        output_dtypes=["float32"],
        grid=(64, 1, 1),
        threadgroup=(64, 1, 1),
    )
    assert [finding.what for finding in simulation.findings] == ["unwritten-output"]
    assert "59 of 64 elements of y" in simulation.findings[0].message
    elementwise("if (i < 5) y[i] = x[i];", x, allow_unwritten=True)


def test_threads_may_simulate_at_once() -> None:
    x = np.arange(64, dtype=np.float32)
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(elementwise("y[i] = simd_sum(x[i]);", x))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for y in results:
        np.testing.assert_array_equal(y, x.reshape(2, 32).sum(1).repeat(32))


def test_a_product_is_not_taken_for_a_pointer() -> None:
    header = (
        "template <typename T> METAL_FUNC T same(T x) { return x; }\nMETAL_FUNC int twice(int T) { return (T * 2); }"
    )
    y = elementwise(
        "const int T = 3;\ny[i] = same(x[i]) + float(twice(T) + (T * T));", np.zeros(32, np.float32), header=header
    )
    np.testing.assert_array_equal(y, 15)


@needs_clang
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_wider_floats_are_no_doubles(dtype: str) -> None:
    """MLX's first documentation example does it; clang's option for doubles also tells of half to float."""
    x = mx.array([0.5, -1.0] * 16).astype(getattr(mx, dtype))
    y = elementwise("float v = x[i]; y[i] = isnan(x[i]) ? 0.0f : v;", x)
    assert mx.array_equal(y, x.astype(mx.float32))


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_a_literal_without_suffix_is_a_float_in_templates_too(dtype: mx.Dtype) -> None:
    x = mx.arange(32).astype(dtype)
    header = "template <typename U> U half_of(U u) { return static_cast<U>(u * 0.5); }\n"
    body = "T a = x[i]; y[i] = float(half_of(a)) + float(static_cast<T>(2. * float(a))) + float(a) * .25 + 1e0;"
    y = elementwise(body, x, header=header, template=[("T", dtype)])
    np.testing.assert_array_equal(np.array(y), np.array(2.75 * mx.arange(32).astype(mx.float32) + 1))


def test_literals_are_written_as_cpp_has_them() -> None:
    for text in ["1.0f", "1", "0x1e5", "v.x", "a1.b2", "1.0F", 'f("1.0h")', "x1e5", "a.b1", "3u", "0xbf", "a.h"]:
        assert literals(text) == text
    for text in ["1.0", "1.", ".5", "1e5", "1.5e-3", "-2.0", "(0.5)", "3.*x", "a-.5e+2", "0x1.8p3", "0x1p-3"]:
        number = text.strip("(-)*a") if text[:2] != "0x" else text
        assert number.removesuffix("*x") + "f" in literals(text), text
    assert literals("1.5h - .25bf * 1.H / 1e2BF") == "half(1.5f) - bfloat(.25f) * half(1.f) / bfloat(1e2f)"


@needs_clang
def test_the_word_constant_in_a_sentence_is_no_address_space() -> None:
    with pytest.raises(KernelFault) as fault:
        elementwise("constexpr int n = int(x[0]); y[i] = n;", np.zeros(32, np.float32))
    assert kinds(fault.value) == ["compile-error"]


@needs_clang
def test_threadgroup_memory_of_types_with_constructors_is_judged_too() -> None:
    header = "struct Cell { float value; int n; Cell() : value(0.0f), n(0) {} };\n"
    body = (
        "threadgroup Cell cells[32];\nthreadgroup atomic_uint counts[4];\n"
        "cells[i % 32].value = x[i];\nthreadgroup_barrier(mem_flags::mem_threadgroup);\ny[i] = cells[i % 32].value;\n"
        "float* p = &y[i];"
    )
    with pytest.raises(KernelFault) as fault:
        elementwise(body, np.ones(32, np.float32), header=header)
    assert set(kinds(fault.value)) == {"address-space"}


@pytest.mark.parametrize("header", ["// helpers", "#define TWO 2.0f", "#include <metal_simdgroup>"])
def test_a_header_whose_last_line_has_no_end_is_refused(header: str) -> None:
    """MLX writes the signature right behind it, where a comment or a directive swallows it."""
    with pytest.raises(KernelFault) as fault:
        elementwise("y[i] = x[i];", np.ones(32, np.float32), header=header)
    assert "header-without-end" in kinds(fault.value)
    elementwise("y[i] = x[i];", np.ones(32, np.float32), header=header + "\n")
