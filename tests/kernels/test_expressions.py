"""Arithmetic of kernel descriptions: what is allowed is computed, everything else is refused."""

from __future__ import annotations

import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels.expressions import evaluate

SIZES = {"T": 33, "B": 2, "dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (7, 7),
        ("T", 33),
        ("ceil_div(T, 32) * B", 4),
        ("-T // 2 + 2 ** 3 % 3", -15),
        ("1 / sqrt(B * 2)", 0.5),
        ("max(T, 40) - min(B, 1)", 39),
        ("dtype", "bfloat16"),
        ("float32", "float32"),
    ],
)
def test_values(expression: object, value: object) -> None:
    assert evaluate(expression, SIZES) == value


@pytest.mark.parametrize(
    "expression", ["U", "__import__('os')", "T.real", "[T]", "T if T else B", "T +", "T / 0", "dtype * 2.5"]
)
def test_refused(expression: str) -> None:
    with pytest.raises(UserError):
        evaluate(expression, SIZES)
