"""Every operator does to a snippet what it says, and nothing to what only looks like its operands."""

from __future__ import annotations

from pathlib import Path

import pytest

from .toys import changes, toy

LOOP = "for (int i = 0; i < n; i += 4)\n  sum += x[i];"


@pytest.mark.parametrize(
    ("snippet", "operator", "was", "now"),
    [
        ("y[0] = a - b - c;", "swap-operands", "a - b - c", "c - (a - b)"),
        ("if (a < b + 1) y[0] = 1;", "swap-operands", "a < b + 1", "(b + 1) < a"),
        ("y[0] = a * b;", "arithmetic", "a * b", "a / b"),
        ("y[0] += a;", "arithmetic", "y[0] += a", "y[0] -= a"),
        ("y[0] = a + b;", "drop-term", "a + b", "b"),
        ("y[0] = a ? b : c;", "drop-term", "a ? b : c", "c"),
        ("if (a >= b) y[0] = 1;", "comparison", "a >= b", "a > b"),
        ("if (a && b) y[0] = 1;", "comparison", "a && b", "a || b"),
        ("y[2] = 1;", "constant", "2", "1"),
        ("y[0] = 0.0f;", "constant", "0.0f", "1.0f"),
        ("y[0] = 1.5e-3f;", "constant", "1.5e-3f", "(1.5e-3f * 1.001f)"),
        ("f<true>(y);", "constant", "true", "false"),
        ("float s = a;", "sign", "a", "-(a)"),
        ("float s = a;", "rounding", "a", "float(T(a))"),
        ("float s = float(x[0]);", "cast", "float(x[0])", "half(x[0])"),
        ("y[0] = T(s);", "cast", "T(s)", "(s)"),
        ("float s = a, t[2];", "shorter-type", "float s = a, t[2];", "T s = a, t[2];"),
        ("f(a, b + 1, c);", "swap-arguments", "f(a, b + 1, c)", "f(b + 1, a, c)"),
        ("y[0] = metal::min(a, b);", "min-max", "metal::min(a, b)", "metal::max(a, b)"),
        ("y[0] = simd_max(a);", "min-max", "simd_max(a)", "a"),
        ("int i = 0, j = 1; y[0] = x[i + j];", "variable", "i", "j"),
        ("if (a) y[0] = 1;", "negate", "a", "!(a)"),
        ("if (a) y[0] = 1;", "negate", "a", "false"),
        ("y[0] = 1;", "remove-statement", "y[0] = 1;", ";"),
        (LOOP, "loop-round", "sum += x[i];", "if (i != (0) + (4) + (4)) sum += x[i];"),
        (LOOP, "loop-round", "sum += x[i];", "if ((i + (4)) < n) sum += x[i];"),
        ("for (int s = 1; s < 32; s *= 2)\n  sum += s;", "loop-round", "sum += s;", "if (s != (1 * (2))) sum += s;"),
    ],
)
def test_an_operator(tmp_path: Path, snippet: str, operator: str, was: str, now: str) -> None:
    assert (operator, was, now) in changes(toy(tmp_path, body=snippet))


def test_one_case_is_a_type_of_the_cases_or_a_type_with_a_size(tmp_path: Path) -> None:
    file = toy(tmp_path, "{n: 32}", "{n: 33, dtype: float16}", body="y[0] = T(a * b);")
    guarded = {now.split(" ? ")[0] for operator, was, now in changes(file) if (operator, was) == ("one-case", "a * b")}
    assert guarded == {"(metal::is_same_v<T, float>", "(metal::is_same_v<T, float16_t>"}


@pytest.mark.parametrize(
    "snippet",
    [
        "vec<T, 2> v = *(const device vec<T, 2>*)x;",  # template brackets, stars and a cast
        "device T* to = y;",
        "Pack<T, N>::load(x, y);",
    ],
)
def test_brackets_of_templates_and_stars_of_pointers_are_no_operators(tmp_path: Path, snippet: str) -> None:
    arithmetical = {"swap-operands", "arithmetic", "comparison", "drop-term"}
    assert not [change for change in changes(toy(tmp_path, body=snippet)) if change[0] in arithmetical]


def test_a_comparison_of_variables_is_no_template(tmp_path: Path) -> None:
    file = toy(tmp_path, body="int i = 0, n = 1; bool b = i<n && n>i;")
    assert {("comparison", "i<n", "i <= n"), ("comparison", "n>i", "n >= i")} <= changes(file)


def test_comments_strings_and_what_only_cuda_compiles_stay(tmp_path: Path) -> None:
    body = "// a + b\n/* a + b */\n#ifdef MSL_CUDA\ny[0] = a + b;\n#else\ny[1] = c + d;\n#endif\n"
    changed = {was for operator, was, _ in changes(toy(tmp_path, body=body)) if operator == "arithmetic"}
    assert changed == {"c + d"}
    body = "#ifndef MSL_TENSOR_CORES\ny[1] = c + d;\n#else\ny[0] = a + b;\n#endif\n"
    changed = {was for operator, was, _ in changes(toy(tmp_path, body=body)) if operator == "arithmetic"}
    assert changed == {"c + d"}


def test_what_cannot_matter_is_left_out(tmp_path: Path) -> None:
    found = changes(toy(tmp_path, body="float a[N / 2 + 5]; vec<T, 2> v; a[0] = v[1]; b = v[1] * s; c = 0.0f;"))
    longer = {("drop-term", "N / 2", "N"), ("constant", "5", "6"), ("arithmetic", "N / 2", "N * 2")}
    rounded_twice = {
        ("rounding", "v[1]", "float(T(v[1]))"),
        ("rounding", "0.0f", "float(T(0.0f))"),
        ("sign", "0.0f", "-(0.0f)"),
    }
    assert not found & (longer | rounded_twice)
    shorter = {("drop-term", "N / 2 + 5", "N / 2"), ("constant", "5", "4")}
    assert (
        shorter | {("rounding", "v[1] * s", "float(T(v[1] * s))"), ("rounding", "v[1]", "float(half(v[1]))")} <= found
    )


def test_barriers_stay(tmp_path: Path) -> None:
    file = toy(tmp_path, body="for (int i = 0; i < 4; i++) {\nthreadgroup_barrier(mem_flags::mem_threadgroup);\n}")
    assert not {change for change in changes(file) if change[0] in ("remove-statement", "loop-round")}


def test_functions_structs_and_macros_of_the_header_are_changed(tmp_path: Path) -> None:
    header = """
#define ROW(lane) ((lane) / 4)
template <typename S, int N>
struct Pack {
  int first;
  METAL_FUNC Pack(int a) { first = a - N; }
  METAL_FUNC S at(thread const S* v) const { return v[first + 1]; }
};
METAL_FUNC float half_of(float x) {
  return x / 2.0f;
}
"""
    found = changes(toy(tmp_path, header=header))
    assert {
        ("arithmetic", "(lane) / 4", "(lane) * 4"),
        ("swap-operands", "a - N", "N - a"),
        ("arithmetic", "first + 1", "first - 1"),
        ("rounding", "v[first + 1]", "float(half(v[first + 1]))"),
        ("sign", "x / 2.0f", "-(x / 2.0f)"),
    } <= found
