"""A kernel's YAML: read, resolved into a call, and refused with one clear line where it is wrong."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels.registry import find_kernel, kernel_names
from mlx_autoresearch.kernels.source import load_kernel, split_source
from mlx_autoresearch.kernels.verify import run_case
from mlx_autoresearch.simulator.translation import check_dialect
from tests.support.compiler_paths import needs_compiler

GOOD = """
inputs:
  x: {dtype: dtype, shape: [n, m], min_elements: 8}
  k: {dtype: int32, value: [n, "ceil_div(m, 2)"]}
outputs:
  y: {dtype: float32, shape: [n]}
grid: [n, 1, 1]
threadgroup: [32, 1, 1]
template: {T: dtype, WIDE: true}
defaults: {n: 8, dtype: float32}
derived: {m: n * 2}
cases: [{n: 8}]
random: {n: 8..9, dtype: [float16]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.metal").write_text("y[0] = 0;\n")
    (tmp_path / "mine.yaml").write_text(GOOD)
    return tmp_path


def test_resolves_a_call(folder: Path) -> None:
    file = load_kernel(folder / "mine.metal")
    call = file.call(file.resolve({"n": 10, "dtype": "bfloat16"}), seed=1)
    dtype, x = call.inputs["x"]
    assert (dtype, x.shape, x.dtype) == ("bfloat16", (10, 20), np.float32)
    np.testing.assert_array_equal(call.inputs["k"][1], np.array([10, 10], np.int32))
    assert call.template == [("T", "bfloat16"), ("WIDE", True)]
    assert (call.grid, call.threadgroup, call.output_shapes) == ((10, 1, 1), (32, 1, 1), [(10,)])
    assert np.array_equal(x, file.call(file.resolve({"n": 10, "dtype": "bfloat16"}), seed=1).inputs["x"][1])


def test_inputs_are_scaled_shifted_and_masked_by_the_sizes_of_a_case(folder: Path) -> None:
    text = GOOD.replace("shape: [n, m], ", "shape: [n, m], scale: spread, offset: 2 * spread, masked: gaps, ")
    (folder / "mine.yaml").write_text(
        text.replace("dtype: float32}\nderived", "dtype: float32, spread: 1, gaps: 0}\nderived")
    )
    file = load_kernel(folder / "mine.metal")
    plain, far, masked = (
        file.call(file.resolve({"n": 100, **sizes})).inputs["x"][1]
        for sizes in ({}, {"spread": 50}, {"spread": 50, "gaps": 0.8})
    )
    np.testing.assert_allclose(far, 50 * plain, rtol=1e-6)
    assert np.isfinite(far).all()
    assert abs(far.mean() - 100) < 5
    assert abs(np.isneginf(masked).mean() - 0.8) < 0.02
    np.testing.assert_array_equal(masked[np.isfinite(masked)], far[np.isfinite(masked)])


def test_a_tolerance_is_for_all_dtypes_for_one_or_for_an_output(folder: Path) -> None:
    def tolerance(kernel: str, output: str = "", dtype: str = "float16") -> float:
        text = GOOD.replace("y: {dtype: float32, shape: [n]", f"y: {{dtype: float32, shape: [n]{output}") + kernel
        (folder / "mine.yaml").write_text(text)
        return load_kernel(folder / "mine.metal").tolerance("y", dtype)

    assert tolerance("tolerance: 2.0e-6") == 2e-6
    assert tolerance("tolerance: {float16: 3.0e-6}") == 3e-6
    assert tolerance("tolerance: {float16: 3.0e-6}", dtype="bfloat16") == 8e-3
    assert tolerance("tolerance: 2.0e-6", ", tolerance: 0") == 0


def test_draws_random_sizes_from_ranges_and_lists(folder: Path) -> None:
    file = load_kernel(folder / "mine.yaml")
    drawn = [file.random_sizes(random.Random(seed)) for seed in range(20)]
    assert {sizes["n"] for sizes in drawn} == {8, 9}
    assert {sizes["dtype"] for sizes in drawn} == {"float16"}


def test_splits_header_and_body_and_keeps_lines() -> None:
    assert split_source("float f();\n// kernel body\na;\n") == ("float f();\n", "a;\n", 3)
    assert split_source("a;\n") == ("", "a;\n", 1)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("shape: [n, m]", "shapes: [n, m]", "inputs.x.shapes: Extra inputs"),
        ("shape: [n, m], ", "", "inputs.x: give either shape or value"),
        ("grid: [n, 1, 1]", "grid: [n]", "grid: three sizes"),
        ("cases: [{n: 8}]", "", "cases: Field required"),
        ("grid: [n", "grid: [n, [", "mine.yaml: "),
        ("cases:", "definition: other.py:f\ncases:", "other.py does not exist"),
    ],
)
def test_a_wrong_description_is_one_line(old: str, new: str, message: str, folder: Path) -> None:
    (folder / "mine.yaml").write_text(GOOD.replace(old, new))
    with pytest.raises(UserError, match=message) as raised:
        load_kernel(folder / "mine.metal")
    assert "\n" not in str(raised.value)


def test_a_header_may_include_a_file_beside_it(folder: Path) -> None:
    (folder / "common.h").write_text("#define TWO 2\n\n#define THREE 3\n")
    (folder / "mine.metal").write_text('// mine\n#include "common.h"\nfloat f();\n// kernel body\ny[0] = TWO;\n')
    kernel = load_kernel(folder / "mine.metal").kernel
    expected = '// mine\n#line 1 "common.h"\n#define TWO 2\n\n#define THREE 3\n#line 3 "mine.metal"\nfloat f();\n'
    assert (kernel.header, kernel.source, kernel.source_line) == (expected, "y[0] = TWO;\n", 5)
    (folder / "common.h").unlink()
    with pytest.raises(UserError, match=r"#include: .*common\.h does not exist"):
        load_kernel(folder / "mine.metal")


def test_findings_in_and_after_an_include_name_their_line(folder: Path) -> None:
    (folder / "common.h").write_text("// one\nthreadgroup float shared[4];\n")
    (folder / "mine.metal").write_text(
        '// mine\n#include "common.h"\nthreadgroup float x[2];\n// kernel body\ny[0] = 0;\n'
    )
    found = check_dialect(load_kernel(folder / "mine.metal").kernel, knows_columns=True)
    assert [(finding.file, finding.line) for finding in found] == [("common.h", 2), ("mine.metal", 3)]


@needs_compiler
def test_a_fault_in_an_included_function_names_its_line(folder: Path) -> None:
    (folder / "common.h").write_text(
        "\ntemplate <typename P> METAL_FUNC float past_the_end(P x) {\n  return x[8];\n}\n"
    )
    body = "if (thread_position_in_grid.x < 8)\n  y[thread_position_in_grid.x] = past_the_end(x);\n"
    (folder / "mine.metal").write_text(f'#include "common.h"\n// kernel body\n{body}')
    (folder / "mine.yaml").write_text(GOOD.replace("[n, m]", "[n]"))
    findings = run_case(load_kernel(folder / "mine.metal"), {"n": 8}, seed=0).findings
    assert [(finding.what, finding.file, finding.line) for finding in findings] == [
        ("device-out-of-bounds", "common.h", 3)
    ]


def test_sizes_are_checked(folder: Path) -> None:
    file = load_kernel(folder / "mine.metal")
    with pytest.raises(UserError, match="unknown size 'T'"):
        file.resolve({"T": 3})
    with pytest.raises(UserError, match="x must have at least 8 elements"):
        file.call(file.resolve({"n": 1}))


def test_finds_our_kernels_by_name_and_others_by_path(folder: Path) -> None:
    assert set(kernel_names()) >= {"flash_attention_forward", "newton_schulz_polynomial", "rope"}
    assert find_kernel("rope").name == "rope"
    assert find_kernel(str(folder / "mine.metal")).name == "mine"
    with pytest.raises(UserError, match="no kernel 'ropes'"):
        find_kernel("ropes")
    with pytest.raises(UserError, match=r"other\.yaml does not exist"):
        (folder / "other.metal").touch()
        find_kernel(str(folder / "other.metal"))


@pytest.mark.parametrize("name", kernel_names())
def test_every_kernel_of_ours_can_be_verified(name: str) -> None:
    file = find_kernel(name)
    assert file.definition is not None
    assert file.description.random and len(file.description.cases) >= 3
    assert (file.kernel.header + file.kernel.source).isascii()
