"""The text of Metal kernels translated to CUDA. That kernels are right is seen on an NVIDIA GPU."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels.cuda import translate
from mlx_autoresearch.kernels.registry import find_kernel, kernel_names
from mlx_autoresearch.simulator import Kernel
from mlx_autoresearch.simulator.build import SHIM
from mlx_autoresearch.simulator.signature import ATTRIBUTES
from mlx_autoresearch.simulator.translation import blank_comments

ADDRESS_SPACE = re.compile(r"\b(?:device|constant|threadgroup|thread)\b")


def translated(body: str, header: str = "", **arguments) -> tuple[str, str]:
    """The body and the kernel's own part of the header."""
    source, whole = translate(Kernel("k", ["x"], ["y"], body, header, **arguments))
    return source, whole[whole.rindex("namespace mlx::core::cu {\n") :]


@pytest.mark.parametrize("name", kernel_names())
def test_no_address_space_is_left_in_our_kernels(name):
    source, header = translate(find_kernel(name).kernel)
    code = re.sub(r'"[^"\n]*"', "", blank_comments(source + header))
    assert not ADDRESS_SPACE.search(code)


def test_address_spaces_go_from_pointers_references_and_casts_and_nothing_else_goes():
    source, header = translated(
        "threadgroup_barrier(mem_flags::mem_threadgroup);\n"
        "const float4 v = *(const device float4*)(x);\n"
        "const uint devices = 1, constants = thread_index_in_threadgroup;\n",
        "METAL_FUNC void f(const device T* a, threadgroup T* b, thread float& c, constant int& d);\n"
        '#line 3 "device.h"\n',
    )
    assert "threadgroup_barrier(mem_flags::mem_threadgroup);" in source
    assert "*(const float4*)(x)" in source
    assert "const uint devices = 1, constants = thread_index_in_threadgroup;" in source
    assert "void f(const T* a, T* b, float& c, int& d);" in header
    assert '#line 3 "device.h"' in header


def test_threadgroup_arrays_become_shared_and_aligned_for_vectors():
    source, _ = translated("threadgroup T a[8 * LD];\nthreadgroup float b[2][3], c;\nthreadgroup float* p = b[0];\n")
    assert "__shared__ alignas(16) T a[8*LD];" in source
    assert "__shared__ alignas(16) float b[2][3]; __shared__ alignas(16) float c;" in source
    assert "\nfloat* p = b[0];" in source


def test_tables_outside_the_kernel_become_constant_memory_and_pointers_do_not():
    _, header = translated("", "constant float table[2] = {1, 2};\nMETAL_FUNC int f(constant int* p, int n = 1);\n")
    assert "__constant__ float table[2] = {1, 2};" in header
    assert "int f(int* p, int n = 1);" in header


def test_attributes_are_declared_where_they_are_named():
    source, _ = translated("// threads_per_grid\ny[thread_position_in_grid.x] = simdgroup_index_in_threadgroup;\n")
    declarations = source[: source.index("#line")]
    assert re.findall(r"const (\w+) (\w+) =", declarations) == [
        ("uint", "simdgroup_index_in_threadgroup"),
        ("uint3", "thread_position_in_grid"),
    ]


def test_every_attribute_of_metal_is_known():
    source, _ = translated(" ".join(ATTRIBUTES))
    for name, ctype in ATTRIBUTES.items():
        assert f"const {ctype} {name} = " in source


def test_lines_are_those_of_the_metal_file():
    kernel = Kernel(
        "k", ["x"], ["y"], "threadgroup float\n  a[3];\n/* two\nlines */ y[0] = a[0];\n", "\nint f();\n",
        file="k.metal", source_line=12, header_line=5,
    )  # fmt: skip
    source, header = translate(kernel)
    after = source[source.index('#line 12 "k.metal"\n') :].split("\n")
    assert "y[0] = a[0];" in after[4]  # line 15
    after = header[header.index('#line 5 "k.metal"\n') :].split("\n")
    assert after[2] == "int f();"


def test_metals_own_includes_go():
    _, header = translated("", "#include <metal_stdlib>\n  #include <metal_simdgroup>\nusing namespace metal;\n")
    assert "include" not in header and "using namespace metal;" in header


@pytest.mark.parametrize(
    ("body", "header", "message"),
    [
        ("int i;\natomic_fetch_add_explicit(y, 1, memory_order_relaxed);", "", "k.metal:11: atomics"),
        ("", "\nMETAL_FUNC void f(texture2d<float> t);", "k.metal:2: textures"),
        ("double x = 1;", "", "k.metal:10: double"),
        ("threadgroup float a[2], *b;", "", "not understood"),
        ("", "threadgroup float a[2];", "outside the kernel"),
    ],
)
def test_what_cannot_be_translated_is_refused_with_its_line(body, header, message):
    with pytest.raises(UserError, match=message):
        translate(Kernel("k", ["x"], ["y"], body, header, file="k.metal", source_line=10))


def test_atomic_outputs_are_refused():
    with pytest.raises(UserError, match="atomics"):
        translated("", atomic_outputs=True)


def test_comments_are_not_code():
    source, header = translated("// double atomic_int threadgroup float a;\n", "/* texture2d device */\n")
    assert not ADDRESS_SPACE.search(source) and "texture" not in header


def listed(kind: str) -> list[str]:
    names = re.findall(rf"^{kind}\((\w+),", (SHIM / "functions.def").read_text(), re.M)
    assert names
    return names


def test_cuda_has_what_the_list_leaves_to_the_platform():
    """Shuffles, and fast:: functions; all others are defined where the list stands in the header."""
    _, header = translate(Kernel("k", ["x"], ["y"], ""))
    for kind, definition in (
        ("MSL_SHUFFLE", "MSL_SHUFFLE"),
        ("MSL_FLOAT_1_FAST", "MSL_DEFINE_FLOAT_1"),
        ("MSL_FLOAT_2_FAST", "MSL_DEFINE_FLOAT_2"),
    ):
        assert [name for name in listed(kind) if f"{definition}({name}, " not in header] == []


# As MLX puts it round a kernel.
CUDA_FILE = """
#include <cuda_fp16.h>
#include <cuda_bf16.h>
#include <cuda/std/cstdint>
#include <cuda/std/limits>
#include <cuda/std/type_traits>
using cuda::std::int8_t;
HEADER
namespace mlx::core::cu {
__global__ void k(const float* x, const int* n, float* y) {
SOURCE
}
}
"""


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_every_function_compiles_for_cuda(tmp_path: Path):
    numbers = ["x[i]", "half(x[i])", "bfloat(x[i])", "float4(x[i], x[i + 1], float2(x[i + 2]))", "half2(x[i], 1)"]
    ones = [name for kind in ("MSL_FLOAT_1", "MSL_FLOAT_1_FAST") for name in listed(kind)]
    ones += [f"{space}::{name}" for space in ("fast", "precise") for name in ones]
    twos = [name for kind in ("MSL_FLOAT_2", "MSL_FLOAT_2_FAST") for name in listed(kind)]
    twos += [f"{space}::{name}" for space in ("fast", "precise") for name in twos] + ["max", "fast::min"]
    calls = [f"{name}({a})" for name in [*ones, "abs"] for a in numbers]
    calls += [f"{name}({a}, {a})" for name in twos for a in numbers]
    calls += [f"{name}({a}, {a}, {a})" for name in listed("MSL_FLOAT_3") for a in numbers]
    calls += [f"{name}({a})" for name in listed("MSL_TEST_1") for a in ("x[i]", "float3(x[i], 1, 2)")]
    calls += [f"{name}({a}, {a})" for name in listed("MSL_TEST_2") for a in ("x[i]", "float3(x[i], 1, 2)")]
    calls += [f"{name}(float3(x[i]), 1.0f{', x[i]' * more})" for name, more in (("pow", 0), ("clamp", 1), ("mix", 1))]
    integers = ["n[i]", "ulong(n[i])", "uchar(n[i])", "uint3(n[i])"]
    calls += [f"{name}({a})" for name in [*listed("MSL_INTEGER_1"), "abs"] for a in integers]
    calls += [f"{name}({a}, {a})" for name in [*listed("MSL_INTEGER_2"), "absdiff"] for a in integers]
    calls += [f"{name}({a}, {a}, {a})" for name in listed("MSL_INTEGER_3") for a in integers]
    calls += [f"{name}" for a in integers for name in (f"extract_bits({a}, 3u, 4u)", f"insert_bits({a}, {a}, 3u, 4u)")]
    calls += [f"{group}_{name}(n[i])" for name in listed("MSL_REDUCTION") for group in ("simd", "quad")]
    calls += [f"{name}(float2(x[i]), ushort(1))" for name in listed("MSL_SHUFFLE")]
    calls += [
        "dot(float3(x[i]), float3(1.0f))",
        "normalize(half4(x[i]))",
        "-float2(x[i]) * 2.0f < 1.0f",
        "float4(x[i]).wzx.yx + packed_float2(x[i], 1.0f)",
        "cross(float3(x[i]), float3(1.0f)) + reflect(float3(x[i]), float3(1.0f))",
        "uint3(n[i]).zy << 3u",
        "1.5h * half(x[i])",
        "0.5bf * bfloat(x[i])",
        "ldexp(float2(x[i]), 3) + nextafter(float2(x[i]), 0.0f)",
        "!bool2(true)",
    ]
    calls += ["float3(packed_float3(float3(x[i])))", "clamp(float3(x[i]), 0.0f, 1.0f)", "median3(n[i], 1, 2)"]
    sums = "".join(f"sink[{i}] = component({call});\n" for i, call in enumerate(calls))
    # To a place that is read nowhere, so that nothing is left out.
    source, header = translate(
        Kernel(
            "k",
            ["x", "n"],
            ["y"],
            f"const uint i = thread_position_in_grid.x;\nvolatile device float* sink = y;\n{sums}",
            "template <class T> METAL_FUNC float component(T x) { return float(x); }\n"
            "template <class T, int N> METAL_FUNC float component(vec<T, N> x) { return float(x[N - 1]); }\n",
        )
    )
    (tmp_path / "k.cu").write_text(CUDA_FILE.replace("HEADER", header).replace("SOURCE", source))
    command = ["nvcc", "-std=c++17", "-arch=sm_80", "-w", "-ptx", str(tmp_path / "k.cu"), "-o", str(tmp_path / "k.ptx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ptx = (tmp_path / "k.ptx").read_text()
    assert all(instruction in ptx for instruction in ("ex2.approx.ftz.f32", "abs.f32", "clz.b64", "shfl.sync"))


def test_the_header_is_complete_in_itself_and_ascii():
    _, header = translate(Kernel("k", ["x"], ["y"], ""))
    assert header.isascii() and "#include" not in header
    assert header.count("{") == header.count("}")
    assert "#define MSL_CUDA 1" in header
