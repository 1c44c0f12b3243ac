"""Wrong calls are refused, saying what was expected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.simulator import KernelFault, metal_kernel
from tests.support.compiler_paths import needs_compiler


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": []}, r"expected 1 inputs \(x\), got 0"),
        ({"grid": (1, 1)}, "grid must be three sizes"),
        pytest.param({"output_dtypes": ["float64"]}, "float64 is not supported", marks=needs_compiler),
        ({"compiler": "/bin/true"}, "is not a compiler it can use"),
    ],
)
def test_wrong_calls_say_what_was_expected(change: dict[str, Any], message: str) -> None:
    call: dict[str, Any] = {
        "inputs": [np.zeros(8, np.float32)],
        "output_shapes": [(8,)],
        "output_dtypes": ["float32"],
        "grid": (8, 1, 1),
        "threadgroup": (8, 1, 1),
    }
    with pytest.raises(UserError, match=message):
        metal_kernel("wrong", ["x"], ["y"], "y[0] = x[0];")(**(call | change))


def test_a_name_must_be_an_identifier() -> None:
    with pytest.raises(UserError, match="must be an identifier"):
        metal_kernel("not a name", ["x"], ["y"], "")


@needs_compiler
@pytest.mark.parametrize(
    ("grid", "threadgroup", "message"),
    [
        ((65536, 65536, 1), (1, 1, 1), "4294967296 threadgroups are too many"),
        ((2**20, 2**20, 2**20), (1024, 1, 1), "threadgroups are too many"),
        ((2**32, 1, 1), (1, 1, 1), "at most 32 bits"),
    ],
)
def test_a_grid_that_cannot_be_simulated_is_refused(grid, threadgroup, message: str) -> None:
    """A count that overflows 32 bits once ran nothing, and found the output unwritten."""
    kernel = metal_kernel("large", ["x"], ["y"], "y[0] = x[0];")
    call = {"output_shapes": [(1,)], "output_dtypes": ["float32"], "grid": grid, "threadgroup": threadgroup}
    with pytest.raises(UserError, match=message):
        kernel(inputs=[np.zeros(8, np.float32)], **call)


@needs_compiler
def test_a_threadgroup_whose_size_overflows_is_a_finding() -> None:
    size = (2**16, 2**16, 2**16)
    kernel = metal_kernel("large", ["x"], ["y"], "y[0] = x[0];")
    call = {"output_shapes": [(1,)], "output_dtypes": ["float32"], "grid": size, "threadgroup": size}
    with pytest.raises(KernelFault, match="threadgroup-size-limit"):
        kernel(inputs=[np.zeros(8, np.float32)], **call)


@needs_compiler
def test_negative_strides_reach_the_kernel_as_mlx_has_them() -> None:
    body = "const uint i = thread_position_in_grid.x;\ny[i] = x[elem_to_loc(int(i), x_shape, x_strides, x_ndim)];"
    kernel = metal_kernel("backwards", ["x"], ["y"], body, ensure_row_contiguous=False)
    call = {"output_shapes": [(12,)], "output_dtypes": ["float32"], "grid": (12, 1, 1), "threadgroup": (4, 1, 1)}
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    for view in (x[::-1], x[:, ::-1], x[::-1, ::-1], x.T[::-1], np.repeat(x, 2, axis=0)[::-2, ::-1]):
        (y,) = kernel(inputs=[view], **call)
        np.testing.assert_array_equal(y, view.reshape(-1))
    wrong = metal_kernel("backwards", ["x"], ["y"], body.replace("x[elem", "x[1 + elem"), ensure_row_contiguous=False)
    with pytest.raises(KernelFault, match="device-out-of-bounds"):
        wrong(inputs=[x[::-1, ::-1]], **call)
