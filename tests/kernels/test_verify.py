"""`verify`: right kernels pass, wrong ones do not, and what was not checked is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import mlx.core as mx
import numpy as np
import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels.description import KernelFile
from mlx_autoresearch.kernels.registry import find_kernel
from mlx_autoresearch.kernels.verify import (
    EXHAUSTIVE_CASES,
    SEEDS,
    cases,
    compare,
    half_a_unit,
    rounded,
    run_case,
    verify,
    verify_on_gpu,
)
from mlx_autoresearch.machine import device
from mlx_autoresearch.simulator import find_compiler
from tests.support.compiler_paths import needs_compiler
from tests.support.mutations import KERNELS

ROPE = str(KERNELS / "tiled_rope.metal")
SMALL: list[dict[str, Any]] = [{"T": 7}]


def edited(old: str, new: str) -> KernelFile:
    file = find_kernel(ROPE)
    assert old in file.kernel.source
    return replace(file, kernel=replace(file.kernel, source=file.kernel.source.replace(old, new)))


@needs_compiler
def test_a_right_kernel_passes_in_every_order() -> None:
    report = verify(find_kernel(ROPE), SMALL)
    assert report.findings == []
    assert [case.seed for case in report.cases] == list(SEEDS)
    assert 0 < report.error < 1
    assert bool(report.unchecked) != find_compiler().is_clang


@needs_compiler
@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("a * c + b * s", "a * c - b * s", "wrong-result"),
        ("T(a * c + b * s)", "T(0.0f)", "wrong-result"),
        ("threadgroup_barrier(mem_flags::mem_threadgroup);", "", "threadgroup-race"),
    ],
)
def test_a_wrong_kernel_does_not(old: str, new: str, expected: str) -> None:
    report = verify(edited(old, new), SMALL, seeds=[0])
    assert expected in {finding.what for finding in report.findings}


@needs_compiler
def test_a_missing_definition_is_said() -> None:
    report = verify(replace(find_kernel(ROPE), definition=None), SMALL, seeds=[0])
    assert report.findings == []
    assert any("no definition" in text for text in report.unchecked)


def test_nan_and_wrong_infinities_exceed_every_tolerance() -> None:
    file = find_kernel(ROPE)
    call = file.call(file.resolve({"T": 1, "H": 1, "D": 2}))
    exact = [np.ones((1, 1, 1, 2)), np.array([1e4])]
    for wrong in (np.nan, np.inf):
        findings, error = compare(file, call, [mx.array([[[[1.0, wrong]]]])], exact)
        assert [finding.what for finding in findings] == ["wrong-result"]
        assert error == np.inf


@needs_compiler
def test_a_definition_of_another_shape_is_refused() -> None:
    file = replace(find_kernel(ROPE), definition=lambda x, base: {"y": x[0]})
    with pytest.raises(UserError, match="the definition gives y the shape"):
        run_case(file, {"T": 7}, seed=0)


def test_exhaustive_adds_random_cases() -> None:
    file = find_kernel(ROPE)
    usual = list(cases(file, [], SEEDS, exhaustive=False))
    more = list(cases(file, [], SEEDS, exhaustive=True))
    assert len(more) == len(usual) + EXHAUSTIVE_CASES
    assert len({seed for _, seed in more}) >= EXHAUSTIVE_CASES


@pytest.mark.parametrize("language", ["metal", "cuda"])
def test_a_gpu_is_refused_in_one_line_where_there_is_none(language: Literal["metal", "cuda"]) -> None:
    if device.kernel_backend() == language:
        assert verify_on_gpu(find_kernel(ROPE), language, SMALL).findings == []
        return
    with pytest.raises(UserError, match=f"no {language.capitalize()} device") as raised:
        verify_on_gpu(find_kernel(ROPE), language)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rounding_to_the_outputs_dtype_is_no_error_and_rounding_twice_is_one(dtype: str) -> None:
    exact = np.random.default_rng(0).standard_normal(10_000) * 2.0 ** np.arange(-30, 10).repeat(250)
    once = rounded(dtype, exact)
    assert (np.abs(once - exact) <= half_a_unit(dtype, exact)).all()
    assert (np.abs(once - exact) > 0.99 * half_a_unit(dtype, exact)).any()
    other = rounded("bfloat16" if dtype == "float16" else "float16", exact)
    twice = rounded(dtype, other)
    assert (np.abs(twice - exact) > half_a_unit(dtype, exact)).any()
    assert np.isinf(rounded("float16", np.array([1e5]))).all()


def test_an_output_rounded_once_is_within_any_tolerance_and_a_16_bit_sum_is_not() -> None:
    file = find_kernel(ROPE)
    call = file.call(file.resolve({"T": 1, "H": 1, "D": 2, "dtype": "float16"}))
    file = replace(
        file,
        definition=lambda x, base: {"y": np.full((1, 1, 1, 2), 1 + 2.0**-11)},
        description=file.description.model_copy(update={"tolerance": 1e-9}),
    )
    exact = [np.ones((1, 1, 1, 2)), np.array([1e4])]
    for output, expected in ((1.0, 0), (1 + 2.0**-10, 0), (1 - 2.0**-11, 1)):
        findings, _ = compare(file, call, [mx.full((1, 1, 1, 2), output, mx.float16)], exact)
        assert len(findings) == expected
