"""What kernels use of the Metal Shading Language runs, means what its specification says, and draws no finding."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mlx_autoresearch.simulator import Kernel, Simulation, run
from tests.support.compiler_paths import compiler_path, each_family, needs_clang, needs_compiler

X = np.arange(1, 33, dtype=np.float32)


Expression = tuple[str, str, np.ndarray | float]  # statements, a value, what that must be in each of 32 lanes


def run_body(body: str, header: str = "", rows: int = 1, compiler: str | None = None) -> Simulation:
    """A kernel of 32 threads that reads x[i] = i + 1 and writes `rows` numbers each, y[32 * row + i]."""
    call = {"output_shapes": [(rows, 32)], "output_dtypes": ["float32"], "grid": (32, 1, 1), "threadgroup": (32, 1, 1)}
    source = f"const uint i = thread_position_in_grid.x;\n{body}\n"
    return run(Kernel("probe", ["x"], ["y"], source, header), [X], compiler=compiler, **call)  # type: ignore[arg-type]


def check(expressions: list[Expression], header: str = "", compiler: str | None = None) -> None:
    """Each has its value, nothing is found, and the static pass understands every line."""
    lines = [f"{{ {body} y[{32 * row} + i] = {value}; }}" for row, (body, value, _) in enumerate(expressions)]
    simulation = run_body("\n".join(lines), header, len(lines), compiler)
    assert [str(finding) for finding in simulation.findings] == []
    assert [what for what in simulation.unchecked if "is not understood" in what] == []
    for result, (body, value, expected) in zip(simulation.outputs[0], expressions, strict=True):
        np.testing.assert_allclose(result, np.broadcast_to(expected, 32), rtol=2e-6, err_msg=f"{body} {value}")


V4 = "float4 v = float4(x[i], 2, 3, 4);"
VECTORS: list[Expression] = [
    (V4, "v.zzww.x + v.xxy.z + v.wx.y", 3 + 2 + X),
    (V4, "v.rgba.a + v.bgr.x + v.aa.y", 4 + 3 + 4),
    (f"{V4} half2 h = half2(v.xy);", "h.x + h.y", X + 2),
    (f"{V4} float3 w = 2.0f * v.xyz;", "w.x + w.z", 2 * X + 6),
    (V4, "(v.xy / v.zw).x + (-v.xy).y", X / 3 - 2),
    (V4, "float(all(v.xy == v.zw)) + float(any(v.yz == float2(2, 9)))", 1),
    (f"{V4} v.xy = v.yx;", "v.x * 100 + v.y", 200 + X),
    (f"{V4} v.zw += 1.0f; v.rgb *= float3(2); v.x -= 1;", "v.x + v.z + v.w", 2 * X - 1 + 8 + 5),
    (f"{V4} auto p = v.yx;", "p.x + p.y", 2 + X),
    (f"{V4} float2 q = x[i] > 2 ? v.xy : v.wz;", "q.x", np.where(X > 2, X, 4)),
    (f"float4 many[2]; {V4} many[1] = v; thread float4* p = many + 1; p->wz = p->xy;", "p->w + p->z", X + 2),
    (V4, "dot(v.xyz, v.zyx) + length(v.zw)", 6 * X + 4 + 5),
    (V4, "max(v.xy, 3.0f).x + min(5.0f, v).x + max(v, 0).y", np.maximum(X, 3) + np.minimum(X, 5) + 2),
    (V4, "clamp(v, float4(2), float4(3)).x + clamp(v, 2.0f, 3.0f).w", np.clip(X, 2, 3) + 3),
    (V4, "mix(v, float4(4), 0.5f).x + pow(v, 2.0f).x + fma(v, 2.0f, v).x", X / 2 + 2 + X**2 + 3 * X),
    (V4, "smoothstep(0.0f, 64.0f, v).x", 3 * (X / 64) ** 2 - 2 * (X / 64) ** 3),
    (V4, "step(16.0f, v).x + sign(-v).y + saturate(v / 64).x", (X >= 16) - 1.0 + X / 64),
    ("half4 h = half4(half(x[i])); h = h * 2.0h + h;", "h.x + float(h.w)", 6 * X),
    ("bfloat2 b = bfloat2(x[i]); b += b;", "float(b.x) + float(fmax(b, 4.0bf).y)", 2 * X + np.maximum(2 * X, 4)),
    ("int4 a = int4(x[i]); a++; --a; a = a << 33 >> 1;", "a.x", X),
    ("uint2 u = uint2(x[i]); u.x |= 64u; u = ~~u ^ 0u;", "u.x % 64 + u.y", 2 * X),
    ("bool2 b = bool2(true, false); b = (b && true) || !b;", "float(all(b)) + float(b.y)", 2),
    ("float2 a = {1, 2}, zero = {}; float4 q = {a, a};", "q.w + zero.x + q.y", 4),
    ("ushort4 u = ushort4(1, 2, 3, 4); ushort2 high = u.zw; u.yw = high;", "u.y * 10 + u.w", 34),
]


P3 = "packed_float3 p = packed_float3(x[i], 2, 3);"
PACKED: list[Expression] = [
    (P3, "p.x + p[1] + p.zy.x + sizeof(p) + alignof(packed_float3)", X + 2 + 3 + 12 + 4),
    (f"{P3} float3 q = p * 2.0f; q += p; p = q; p.xy = q.yx; p += 1;", "p.x + q.y + p.z", 7 + 6 + 10),
    (P3, "dot(p, p) + length(packed_float2(3, 4)) + max(p, 5.0f).z", X**2 + 13 + 5 + 5),
    ("packed_half4 h = half4(1, 2, 3, half(x[i]));", "float(h.w) + sizeof(h) + float(half3(h.xyz).z)", X + 8 + 3),
    ("packed_uchar4 u = uchar4(1, 2, 3, 4); packed_short2 s = short2(u.zw);", "s.x * 10 + s.y + sizeof(s)", 34 + 4),
    ("", "sizeof(float3) + alignof(half3) + sizeof(uchar3) + sizeof(packed_uchar3)", 16 + 8 + 4 + 3),
]
MATH: list[Expression] = [
    ("float2 c; float2 s = sincos(float2(x[i], 0), c);", "s.x + c.x + c.y", np.sin(X) + np.cos(X) + 1),
    ("float whole; float rest = modf(-x[i] - 0.25f, whole);", "whole * 8 + rest", -8 * X - 0.25),
    ("half whole; half rest = modf(2.5h, whole);", "whole + rest * 4", 4),
    ("int e; float m = frexp(x[i], e); int2 e2; float2 m2 = frexp(float2(x[i]), e2);", "ldexp(m, e) + m2.y - m", X),
    ("", "ilogb(x[i]) + ldexp(float2(x[i]), int2(3)).y + float(ldexp(0.5h, 2))", np.floor(np.log2(X)) + 8 * X + 2),
    ("", "(nextafter(1.0f, 2.0f) - 1.0f) * 8388608 + nextafter(float2(0), -1.0f).x", 1),
    ("", "float(nextafter(1.0h, 0.0h)) + tanpi(0.25f) + fmedian3(x[i], 9.0f, 4.0f)", 1.99951171875 + np.clip(X, 4, 9)),
    ("half h = half(x[i]);", "isnan(h) + isinf(h) + isfinite(bfloat(x[i])) + isnormal(1e-40f) + signbit(-h)", 2),
    ("", "isordered(x[i], 1.0f) + isunordered(x[i], NAN) + float(isnan(float2(NAN, 1)).x)", 3),
    ("float2 a = 1, b = 2;", "select(a, b, float2(x[i], 9) > 4.0f).x + select(a, b, true).y", (X > 4) + 3.0),
    ("half3 h = half3(half(x[i]), 0, 0);", "length(h) + dot(h, h) + normalize(h).x", X + X**2 + 1),
]
G = "float3 a = float3(x[i], 1, 0), b = float3(0, 1, 0);"
GEOMETRY: list[Expression] = [
    (G, "distance(a, b) + distance_squared(a, b) + length_squared(a)", X + X**2 + X**2 + 1),
    (G, "cross(a, b).z + cross(a.zxy, b).x", X + -1.0 * 1),
    (G, "reflect(a, b).x + reflect(a, b).y * 8", X - 8),
    (G, "faceforward(a, b, b).y + faceforward(a, b, -b).y * 8", -1 + 8),
    (G, "refract(float3(0, -1, 0), b, 0.5f).y + length(refract(float2(1, 0), float2(0, 1), 2.0f))", -1),
]
N = "int n = int(x[i]); uint u = uint(n);"
INTEGERS: list[Expression] = [
    (N, "insert_bits(0u, u, 4, 2) + extract_bits(0xF0u, 4, 4) + extract_bits(int(0xF0), 4, 4)", X % 4 * 16 + 15 - 1),
    (N, "insert_bits(ushort(0xFFFF), ushort(0), 0, 8) + extract_bits(u, 0, 32) + extract_bits(u, 3, 0)", 0xFF00 + X),
    (N, "absdiff(n, -n) + absdiff(char(-100), char(100)) + absdiff(uint2(u), 40u).x", 2 * X + 200 + 40 - X),
    (N, "float(addsat(2147483647, n)) + subsat(0u, u) + subsat(char(-100), char(100))", 2147483647.0 - 128),
    (N, "addsat(uchar(250), uchar(n)) + addsat(short(-32768), short(-n))", np.minimum(250 + X, 255) - 32768),
    (N, "hadd(n, n + 1) + rhadd(n, n + 1) + hadd(-3, -4) + rhadd(uchar(255), uchar(254))", 2 * X + 1 - 4 + 255),
    (N, "mulhi(-1, n) + mulhi(short(-300), short(300)) + mulhi(uchar(255), uchar(255))", -1 - 2 + 254),
    (
        N,
        "float(mulhi(0xffffffffu, u)) + mulhi(1l << 40, long(n) << 40) + mulhi(ulong(1) << 63, 6ul)",
        X - 1 + 65536 * X + 3,
    ),
    (N, "madhi(1 << 20, 1 << 20, n) + mul24(n, 3) + mad24(2u, 3u, u)", 256 + X + 3 * X + 6 + X),
    (
        N,
        "float(madsat(1 << 30, 4, n)) + madsat(-100l, 3l, -1l) + madsat(char(100), char(-2), char(n))",
        2147483647.0 - 301 + np.maximum(-200 + X, -128),
    ),
    (N, "float(rotate(1u, u)) / 4", 2.0 ** (X % 32) / 4),
    (N, "rotate(ushort(0x8001), ushort(4)) + rotate(uchar2(1, 3), uchar2(7)).y", 0x18 + 0x81),
    (
        N,
        "clz(ushort(1)) + ctz(8l) + popcount(u) + clz(uchar2(1)).x + reverse_bits(uchar(3))",
        15 + 3 + np.array([int(x).bit_count() for x in X]) + 7 + 192,
    ),
    (
        N,
        "max(short4(n), short(2)).x + min3(n, 5, 3) + median3(n, 7, 5) + clamp(short2(n), short(2), short(4)).x",
        np.maximum(X, 2) + np.minimum(X, 3) + np.clip(X, 5, 7) + np.clip(X, 2, 4),
    ),
]
Q = X.reshape(8, 4)
each = np.arange(32)
GROUPS: list[Expression] = [
    ("", "quad_prefix_inclusive_sum(x[i])", Q.cumsum(1).reshape(-1)),
    ("", "quad_prefix_exclusive_sum(x[i])", (Q.cumsum(1) - Q).reshape(-1)),
    ("", "quad_prefix_inclusive_product(x[i])", Q.cumprod(1).reshape(-1)),
    ("", "simd_prefix_exclusive_product(x[i] > 4 ? 1.0f : 2.0f)", 2.0 ** np.minimum(each, 4)),
    ("", "quad_all(i % 8 < 4) * 2 + quad_any(i % 8 == 5)", (each % 8 < 4) * 2 + (each % 8 >= 4)),
    ("", "float(ushort(quad_vote::vote_t(quad_ballot(i % 4 != 1))))", 0b1101),
    ("", "quad_ballot(true).all() + quad_ballot(false).any() + simd_ballot(true).all()", 2),
    (
        "",
        "float((simd_vote::vote_t)simd_ballot(i < 3)) + popcount(ulong(quad_active_threads_mask().operator ushort()))",
        11,
    ),
    ("", "quad_is_first() * 100 + quad_broadcast_first(x[i])", (each % 4 == 0) * 100 + Q[:, :1].repeat(4)),
    ("", "quad_shuffle_rotate_up(x[i], 1)", np.roll(Q, 1, 1).reshape(-1)),
    ("", "quad_shuffle_rotate_down(x[i], 1)", np.roll(Q, -1, 1).reshape(-1)),
    ("", "quad_shuffle_and_fill_down(x[i], 9.0f, 1)", np.where(each % 4 < 3, X + 1, 9)),
    ("", "quad_shuffle_and_fill_up(x[i], 9.0f, 1)", np.where(each % 4 > 0, X - 1, 9)),
    ("", "simd_shuffle_and_fill_down(x[i], 7.0f, 3, 16)", np.where(each % 16 < 13, X + 3, 7)),
    ("", "simd_shuffle_and_fill_up(x[i], 7.0f, 3, 8)", np.where(each % 8 >= 3, X - 3, 7)),
]
M = "float2x2 m = float2x2(float2(1, 2), float2(3, x[i]));"
MATRICES: list[Expression] = [
    (f"{M} float2 v = float2(1, 2);", "(m * v).x + (v * m).y * 100", 7 + 100 * (3 + 2 * X)),
    (M, "m[0][1] + determinant(m) + transpose(m)[1][0] + (m * m)[1].x", 2 + X - 6 + 2 + 3 + 3 * X),
    (f"{M} m = m * 2.0f - m; m += m; m[1] = float2(5);", "m[0].y + m[1].x + float(m == m) + (-m)[0][0]", 4 + 5 + 1 - 2),
    ("float4x4 m(2.0f); m[3][0] = x[i];", "determinant(m) + (m * float4(1)).x", 16 + 2 + X),
    (
        "float3x3 m = float3x3(1, 2, 3, 0, 1, 4, 5, 6, 0); half3x3 h = half3x3(m);",
        "determinant(m) + float(h[2].y)",
        1 + 6,
    ),
    ("float2x3 m = float2x3(float3(1, 2, 3), float3(4, 5, 6));", "(m * float2(1, 10)).z + transpose(m)[2].y", 63 + 6),
]
PACKS: list[Expression] = [
    ("float4 f = unpack_unorm4x8_to_float(0xFF330000u);", "f.w + f.z + f.x", 1.2),
    ("", "unpack_snorm4x8_to_float(0x81u).x + float(unpack_snorm2x16_to_half(0x7FFF0000u).y)", -1 + 1),
    ("", "float(pack_float_to_unorm4x8(float4(1, 0.5, 0, 2)) >> 8)", 0xFF0080),
    ("", "float(pack_float_to_snorm2x16(float2(-1, 1)) >> 16) + (pack_half_to_unorm2x16(half2(1, 0)) & 7)", 0x7FFF + 7),
    ("", "float(pack_float_to_srgb_unorm4x8(unpack_unorm4x8_srgb_to_float(0x804020u)))", 0x804020),
]
HELPERS = """
struct Mean {
  float sum;
  Mean(float first) : sum(first) {}
  void add(float v) thread { sum += v; }
  float of(int n) const thread { return sum / n; }
};
struct Cell { float value; void set(float v) threadgroup { value = v; } };
constant float table[4] = {1, 2, 3, 4};
static constexpr constant int SIZE = 4;
template <int N> struct Power { static constexpr constant int of_two = 2 * Power<N - 1>::of_two; };
template <> struct Power<0> { static constexpr constant int of_two = 1; };
struct Point { float2 xy; float rgb; };
#define LANES threadgroup
#define SHARED(name, type, n) \\
  threadgroup type name[n]
template <typename V> V twice(V v) { return v + v; }
"""
STATEMENTS: list[Expression] = [
    ("typedef vec<half, 4> H4; H4 h = H4(float4(x[i])); float4 f(1, 2, 3, 4);", "h.w + f.w", X + 4),
    ("Mean mean(x[i]); mean.add(3);", "mean.of(2)", (X + 3) / 2),
    ("threadgroup Cell cells[32]; cells[i].set(x[i]);", "cells[i].value", X),
    (
        "Point point; point.xy = float2(x[i], 2); point.rgb = 3;",
        "point.xy.x + point.rgb + twice(float2(1, x[i])).y",
        3 * X + 3,
    ),
    (
        "array<float, SIZE> a = {1, 2, 3, 4};",
        "a[i % SIZE] + table[1] + Power<3>::of_two + a.size()",
        each % 4 + 1 + 2 + 8 + 4,
    ),
    (
        "threadgroup float (*rows)[8]; threadgroup float tile[4][8]; rows = tile; rows[i / 8][i % 8] = x[i];",
        "tile[i / 8][i % 8]",
        X,
    ),
    (
        "threadgroup alignas(16) float t[32]; t[i] = x[i]; threadgroup const unsigned int* none = nullptr; (void)none;",
        "t[i]",
        X,
    ),
    ("alignas(8) threadgroup unsigned short t[32]; t[i] = ushort(i);", "t[i]", each),
    ("LANES float t[32]; LANES float* p = t + i; *p = x[i];", "t[i]", X),
    ("SHARED(t, float, (16 + 16)); t[i] = x[i];", "t[i]", X),
    ("constexpr float small = 0x1p-2, large = 1.5bf * 2.0;", "small + large + 1.5h", 0.25 + 3 + 1.5),
    (
        "typedef make_unsigned_t<int> U; conditional_t<is_same_v<U, uint>, float, int> v = 0.5;",
        "v + is_arithmetic_v<half> + is_signed_v<int> + is_convertible_v<int, float> + is_pointer_v<device float*>",
        4.5,
    ),
    ("", "CHAR_BIT + USHRT_MAX + float(M_PI_H > 3.0h) + FLT_MANT_DIG + M_LN10_F * 0", 8 + 65535 + 1 + 24),
]
HEADERS = "array atomic common compute geometric integer limits logging math matrix numeric pack quadgroup relational "
HEADERS += "simdgroup simdgroup_matrix stdlib type_traits types"


@each_family
@pytest.mark.parametrize(
    "chapter", ["VECTORS", "PACKED", "MATH", "GEOMETRY", "INTEGERS", "GROUPS", "MATRICES", "PACKS"]
)
def test_a_chapter_of_the_specification(chapter: str, family: str) -> None:
    expressions = globals()[chapter]
    if family == "gcc":  # whose places have no columns
        expressions = [entry for entry in expressions if len(re.findall(r"(?:simd|quad)_\w+\(", entry[1])) < 2]
    check(expressions, compiler=compiler_path(family))


@each_family
def test_declarations(family: str) -> None:
    check(STATEMENTS, HELPERS, compiler=compiler_path(family))


@needs_compiler
def test_metals_own_headers_may_be_included() -> None:
    header = "".join(f"#include <metal_{name}>\n" for name in HEADERS.split()) + "using namespace metal;\n"
    check([("", "x[i]", X)], header)


@needs_compiler
@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("float4 v; v.xx = float2(1, 2);", "repeats a component"),
        ("float2 v; v.xyz = float3(1);", "xyz"),
        ("const float2 v = 1; v.yx = v;", "const"),
        ("float2 v = float2(1) + float3(1);", "operand"),
        ("float2 v = float2(1) + half2(1);", "operand"),
        ("float3 v = float3(1, 2);", "number of components"),
        ("float2x2 m = float2x2(float2(1), float2(2), float2(3));", "made of its columns"),
    ],
)
def test_what_metal_refuses_is_refused(statement: str, says: str) -> None:
    findings = run_body(f"{statement}\ny[i] = x[i];").findings
    assert {(finding.file, finding.line) for finding in findings} == {("probe.metal", 2)}
    assert any(says in finding.message for finding in findings), findings


@needs_clang
def test_a_threadgroup_variable_that_no_pattern_finds_is_not_taken_for_a_private_one() -> None:
    header = "#define PASTE(a, b) a##b\n"
    (finding, *_) = run_body("PASTE(thread, group) float t[32]; t[i] = x[i];\ny[i] = t[31 - i];", header).findings
    assert finding.what == "unsupported" and finding.line == 2
