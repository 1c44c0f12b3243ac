"""Counters are exact for every statement that branches or repeats, and change nothing that a kernel computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.simulator import Kernel, Simulation, run
from tests.support.compiler_paths import compiler_path, needs_clang, needs_compiler, needs_gcc

THREADS = 8
HEADER = """
#define TWICE(c) ((c) ? 2 : 1)
#define LOOP(n) for (int z = 0; z < n; z++)
template <class T> struct P {
  METAL_FUNC static int f(int a) { if (a && a < 3) a = 2; return a; }
  METAL_FUNC P(int z) : q(z ? 1 : 2) {}
  int q;
};
METAL_FUNC constexpr int rows(int b) {
  int s = 0;
  for (int i = 0; i < b; i++) { if (i == 2) continue; s += i > 3 ? 1 : 2; }
  return s;
}
METAL_FUNC int early(int a, int b = 1 > 0 ? 2 : 3) {
  if (a > b)
    return 1;
  return 2;
}
METAL_FUNC int never() { return 3; }
template <int N, class A, class B> METAL_FUNC bool less(A a, B b) { return a < b; }
"""
# Each line, and for N = 3 and 8 threads its conditions [false, true] and loops [0, 1, 2, 3 and more, constant rounds].
LINES: list[tuple[str, dict[str, list[int]]]] = [
    ("const int i = int(thread_position_in_grid.x), n = x[0];", {}),
    ("int s = 0;", {}),
    ("constexpr int A = rows(N), Z = N > 2 && N < 5 ? 1 : 0;", {"N > 2": [0, 8], "N < 5": [0, 8]}),
    ("const int R[2] = {n ? 1 : 0, 3};", {"n": [8, 0]}),
    ("const int C = N > 4 ? 1 : 2; int u[C]; u[0] = A + Z;", {"N > 4": [8, 0]}),
    ("s += TWICE(i > 3);", {"(i > 3)": [4, 4]}),
    ("if (i < 2) if (i < 1) s++; else s--;", {"i < 2": [6, 2], "i < 1": [1, 1]}),
    (
        "if (i > 2) for (int k = 0; k < i; k++) s++; else s += 3;",
        {"i > 2": [3, 5], "while k < i": [0, 0, 0, 5, 0]},
    ),
    (
        "if (i > 2) LOOP(i) if (z == 1) break; else s++; else s += 3;",
        {"i > 2": [3, 5], "while z < i": [0, 0, 5, 0, 0], "z == 1": [5, 5]},
    ),
    (
        "if constexpr (N > 3 && sizeof(T) > 2) s = 0; else if (n) s += 1;",
        {"N > 3": [8, 0], "sizeof(T) > 2": [0, 0], "n": [8, 0]},
    ),
    ("int v = 0; for (;;) { if (v++ > i) break; }", {"for (;;)": [0, 0, 1, 7, 0], "v++ > i": [36, 8]}),
    ("for (auto e : R) s += e;", {"for (auto e : R)": [0, 0, 0, 0, 8]}),
    ("int w = i; while (int q = w--) s += q;", {"while (int q = w--)": [1, 1, 1, 5, 0]}),
    ("if (int q = i; q > 2) s++;", {"q > 2": [3, 5]}),
    ("if (int q = i) s++;", {"int q = i": [1, 7]}),
    (
        "w = 0; do w++; while (w < i && not(w == 5));",
        {"while w < i && not(w == 5)": [0, 2, 1, 5, 0], "w < i": [6, 20], "not(w == 5)": [2, 18]},
    ),
    (
        "switch (i) { case 1: case 2: s++; break; case 3: { for (int k = 0; k < 3; k++) if (k) break; } }",
        {"case 1": [1], "case 2": [2], "case 3": [1], "switch (i) without a case": [5], "k": [1, 1]}
        | {"while k < 3": [0, 0, 1, 0, 0]},
    ),
    ("switch (i % 2) { case 0: s++; default: s--; }", {"case 0": [4], "default": [8]}),
    ("static_assert(N > 0 && N < 9, \"\"); (void)sizeof(int[N > 1 ? 1 : 2]);", {}),
    (
        "bool both = less<1, int, int>(i, 2) && less<N, int, int>(i, 3) or not (i > 5);",
        {"less<1, int, int>(i, 2)": [6, 2], "less<N, int, int>(i, 3)": [0, 2], "not (i > 5)": [2, 4]},
    ),
    ("thread P<int> p(i); auto l = [](int y) { return y ? 1 : 2; };", {"y": [8, 16]}),
    ("for (int a = 0, b = 3; a < b; a++) s += l(a);", {"while a < b": [0, 0, 0, 8, 0]}),
    ("\n#pragma unroll\nfor (int k = 0; k < N * 2; k += 2) s += P<int>::f(k);", {"while k < N * 2": [0, 0, 0, 0, 8]}),
    ("for (int k = 0; k < 4; k++) if (k == i) k++;", {"while k < 4": [0, 0, 0, 8, 0], "k == i": [25, 4]}),
    ("struct Two { int a, b; }; Two two = {i > 6 ? 1 : 2, 3}; Two copy{i > 5 ? 1 : 2}; s += two.a + copy.a;",
     {"i > 6": [7, 1], "i > 5": [6, 2]}),
    ("int rows_of[2][2] = {{i && s, 0}, {1}}; s += rows_of[0][0];", {"i": [1, 7], "s": [0, 7]}),
    ("for (w = 0; w < 3; ++w) s++;", {"while w < 3": [0, 0, 0, 0, 8]}),
    ("for (int m = 9; 1 < m; m /= 2) s++;", {"while 1 < m": [0, 0, 0, 0, 8]}),
    ("for (int m = 0; m < 9; m = m + 4) s++;", {"while m < 9": [0, 0, 0, 8, 0]}),
    ("for (int m = 0; m < 4; m++) if (m > 1 + i) break;", {"while m < 4": [0, 0, 0, 8, 0], "m > 1 + i": [29, 2]}),
    ("for (int m = 0; m < 4; m++) for (int b = 0; b < i; b++) if (b) break;",
     {"while m < 4": [0, 0, 0, 0, 8], "while b < i": [4, 4, 24, 0, 0], "b": [28, 24]}),
    ("struct Local { int v; Local(int a) : v(a ? a : 7) {} int get() { return v > 3 ? v : 3; } };", {
        "a": [1, 7], "v > 3": [3, 5]}),
    ("s += Local(i).get() + early(i) + early(i, 5);", {}),
    ("(i > 2 ? s : w) += 1; int c = (s++, i > 2) ? 1 : 2;", {"i > 2": [3, 5], "(s++, i > 2)": [3, 5]}),
    ("if (simd_max(s) > 3 && (both || i < 2)) s++;", {"simd_max(s) > 3": [0, 8], "both": [2, 6], "i < 2": [2, 0]}),
    ("y[i] = T(s + p.q + u[0]);", {}),
]  # fmt: skip
FUNCTIONS = {  # of the header
    "a": [8, 16],
    "a < 3": [8, 8],
    "z": [1, 7],
    "while i < b": [0, 0, 0, 8, 0],
    "i == 2": [16, 8],
    "i > 3": [16, 0],
    "f": [24],
    "P": [8],
    "rows": [8],
    "never": [0],
    "early": [16],
    "a > b": [9, 7],
    "less": [10],
}
BODY = "\n".join(line for line, _ in LINES)
KERNEL = Kernel("odd", ["x"], ["y"], BODY, HEADER)


def launch(kernel: Kernel = KERNEL, dtype: str = "float32", **options: Any) -> Simulation:
    call = {"output_shapes": [(THREADS,)], "output_dtypes": [dtype], "template": [("T", dtype), ("N", 3)]}
    call |= {"grid": (THREADS, 1, 1), "threadgroup": (THREADS, 1, 1), "static_pass": False, **options}
    return run(kernel, [np.zeros(9, np.int32)], **call)


@needs_clang
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_branch_and_every_round_is_counted(seed: int) -> None:
    done = launch(coverage=True, checked=False, seed=seed)
    assert done.findings == [] and done.unmeasured == ()
    got: dict[tuple[str, int, str], list[int]] = {}
    for place, counts in done.counts.items():
        if place.text != "msl_kernel":
            width = 5 if place.kind in ("loop", "do") else 2 if place.kind == "condition" else 1
            assert not any(counts[width:])
            key = place.file, place.line if place.file == "odd.metal" else 0, place.text
            assert key not in got
            got[key] = list(counts[:width])
    expected = {("odd.header", 0, text): counts for text, counts in FUNCTIONS.items()}
    line = 1
    for text, counts in LINES:
        place = line + text.count("\n")  # the last line of a text that has several
        expected |= {("odd.metal", place, what): count for what, count in counts.items()}
        line += text.count("\n") + 1
    assert got == expected


@needs_clang
@pytest.mark.parametrize("checked", [True, False])
def test_counters_change_no_result(checked: bool) -> None:
    plain, counted = launch(checked=checked), launch(checked=checked, coverage=True)
    assert plain.findings == counted.findings == []
    np.testing.assert_array_equal(plain.outputs[0], counted.outputs[0])
    assert plain.counts == {}


@needs_clang
def test_places_are_the_same_for_every_dtype() -> None:
    one, other = (launch(dtype=dtype, checked=False, coverage=True) for dtype in ("float32", "bfloat16"))
    assert list(one.counts) == list(other.counts)


@needs_clang
def test_what_cannot_be_counted_is_said() -> None:
    body = "const int i = int(thread_position_in_grid.x);\ny[i] = T(x[i] ?: 3);\n"
    done = launch(Kernel("elvis", ["x"], ["y"], body), checked=False, coverage=True)
    assert done.unmeasured == ("elvis.metal:2: the condition of a `?:` without a middle",)


@needs_clang
def test_a_kernel_that_does_not_compile_is_one_line() -> None:
    with pytest.raises(UserError, match=r"does not read the kernel: broken\.metal:1: .*missing") as raised:
        launch(Kernel("broken", ["x"], ["y"], "y[0] = missing;\n"), coverage=True)
    assert "\n" not in str(raised.value)


@needs_compiler
@needs_gcc
def test_gcc_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="install clang") as raised:
        launch(coverage=True, compiler=compiler_path("gcc"))
    assert "\n" not in str(raised.value)
