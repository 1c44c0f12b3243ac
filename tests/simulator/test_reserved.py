"""Words that C++ takes as names and Metal does not, and text that MLX cannot hand to Metal."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlx_autoresearch.kernels.registry import kernel_folder, kernel_names
from mlx_autoresearch.kernels.source import load_kernel
from mlx_autoresearch.simulator.kernel import Kernel
from mlx_autoresearch.simulator.reserved import NEVER, NO_GLOBAL_NAMES, NO_NAMES, reserved_global_names, reserved_names
from mlx_autoresearch.simulator.translation import blank_comments, check_dialect

NAMING = [
    "float {w} = 1;",
    "float {w}(float x) {{ return x; }}",
    "int {w}[4];",
    "int f(int {w}) {{ return 0; }}",
    "int f(int a, float4 {w}, int b) {{ return 0; }}",
    "template <typename {w}> void f();",
    "template <int {w}, int n> void f();",
    "struct {w} {{ int a; }};",
    "struct S {{ int {w}; }};",
    "enum {w} {{ A }};",
    "using {w} = float;",
    "typedef float {w};",
    "namespace {w} {{ int a; }}",
    "#define {w} 3",
    "# define {w}(x) (x)",
    "x = s.{w};",
    "x = p->{w};",
    "vec<float, 4> {w} = y;",
    "float* {w} = y;",
    "const device float* {w};",
    "float& {w} = y;",
    "for (int {w} : a) b;",
    "auto\n  {w} = 3;",
]
PROPER = [
    "half h = half(3) * half(4) + x * half(5) - (half)y;",
    "return half(x);",
    "if (x > half(0) && y < half(1)) z = vec<half, 4>(0);",
    "metal::vec<const half, 4> v; simdgroup_matrix<half, 8, 8> m; array<int, half> a;",
    "template <typename T = half> T f(const device half* p, threadgroup half4& q, constant half* c);",
    "METAL_FUNC half f(half a, half b) { thread half* p = &a; return static_cast<half>(b); }",
    "struct S { operator half() const { return 0; } };",
    "uint u = as_type<uint>(f); auto v = x * as_type<float>(u);",
    "typedef half value; using T = half; int n = sizeof(half);",
    "(*(threadgroup half*)p) = *(const device half*)(q + 1);",
    "threadgroup float a[3]; threadgroup_barrier(mem_flags::mem_device);",
    "uint device_id, kernel_size, fragments, vertex_count, half_width, my_half; x.halfway = threads;",
    "case half(3): do half(3); while (0); else half(4);",
    "constexpr half c = 1; static const half d = 2; bfloat b = bfloat(1);",
]


@pytest.mark.parametrize("text", NAMING)
@pytest.mark.parametrize("word", sorted(NEVER | NO_NAMES))
def test_a_reserved_word_is_no_name(text: str, word: str) -> None:
    written = text.format(w=word)
    assert word in {found for _, found in reserved_names(written)}
    assert not list(reserved_names(text.format(w=f"{word}_")))


@pytest.mark.parametrize("text", PROPER)
def test_proper_uses_are_none(text: str) -> None:
    assert list(reserved_names(text)) == []


@pytest.mark.parametrize("word", sorted(NO_GLOBAL_NAMES))
def test_a_name_of_metals_library_is_ambiguous_outside_of_functions(word: str) -> None:
    for text in (
        "float {w}(float x) {{ return x; }}",
        "struct {w} {{ int a; }};",
        "constant int {w} = 3;",
        "enum {w} {{ A }};",
    ):
        text = "template <typename T> T f(T x) { return x; }\n" + text.format(w=word)
        assert [found for _, found in reserved_global_names(text)] == [word]
    for text in ("float f(float {w}) {{ int {w} = 3; return {w}; }}", "struct S {{ float {w}; }};", "#define {w} 3"):
        assert list(reserved_global_names(text.format(w=word))) == []
    given = kernel("float level = 3;\nfloat bias = x[0];", f"int a;\nfloat {word}() {{ return 1; }}\n")
    (finding,) = check_dialect(given, knows_columns=True)
    assert (finding.what, finding.line) == ("reserved-word", 2)


def test_no_kernel_of_ours_nor_of_the_tests_uses_one() -> None:
    folders = (kernel_folder(), Path(__file__).parent / "kernels")
    files = [path for folder in folders for path in folder.glob("*") if path.suffix in (".metal", ".h")]
    assert len(files) > 20
    assert {(p.name, word) for p in files for _, word in reserved_names(blank_comments(p.read_text()))} == set()
    for name in kernel_names():
        assert check_dialect(load_kernel(kernel_folder() / f"{name}.metal").kernel, knows_columns=True) == []


def kernel(body: str, header: str = "", inputs: tuple[str, ...] = ("x",)) -> Kernel:
    return Kernel("mine", inputs, ("y",), body, header)


def test_findings_name_word_and_line() -> None:
    given = kernel("int a;\nint vertex = 0; // fragment\n", "\nfloat fragment(float x) { return x; }", ("x", "kernel"))
    found = check_dialect(given, knows_columns=True)
    assert [(f.what, f.line, f.message.split("`")[1]) for f in found] == [
        ("reserved-word", 2, "fragment"),
        ("reserved-word", 2, "vertex"),
        ("reserved-word", 1, "kernel"),
    ]


@pytest.mark.parametrize("text", ["y[0] = x[0]; // π", "y[0] = 1; /*\n\u00a0*/", "// “quoted”\n", "float \u03b1 = 1;"])
def test_text_that_is_not_ascii_is_found_in_comments_too(text: str) -> None:
    for given in (kernel(text), kernel("y[0] = 0;", text)):
        assert [f.what for f in check_dialect(given, knows_columns=True)][:1] == ["not-ascii"]
