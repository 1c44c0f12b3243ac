"""Wrong calls are refused, saying what was expected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.simulator import metal_kernel
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
