"""The text of Metal kernels translated to CUDA. That it compiles and is right is seen on an NVIDIA GPU."""

import re
from pathlib import Path

import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels.cuda import translate, translation
from mlx_autoresearch.kernels.registry import find_kernel, kernel_names
from mlx_autoresearch.simulator import Kernel
from mlx_autoresearch.simulator.signature import ATTRIBUTES
from mlx_autoresearch.simulator.translation import blank_comments

SHIM = Path(translation.__file__).parent / "shim"
FUNCTIONS = Path(translation.__file__).parents[2] / "simulator" / "shim" / "functions.def"
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


def test_cuda_has_every_function_of_the_simulator():
    listed = re.findall(r"^(MSL_\w+\(\w+),", FUNCTIONS.read_text(), re.M)
    shim = "".join(path.read_text() for path in SHIM.iterdir())
    assert len(listed) > 60
    assert [name for name in listed if f"{name}," not in shim] == []


def test_the_header_is_complete_in_itself_and_ascii():
    _, header = translate(Kernel("k", ["x"], ["y"], ""))
    assert header.isascii() and "#include" not in header
    assert header.count("{") == header.count("}")
    assert "#define MSL_CUDA 1" in header
