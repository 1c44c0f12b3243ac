"""Arithmetic of kernel descriptions: what is allowed is computed, everything else is refused."""

from __future__ import annotations

import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels.expressions import evaluate

SIZES = {"T": 33, "B": 2, "dtype": "bfloat16", "rows": [0]}


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
        ("2 ** 64", 2**64),
        ("2.0 ** -64", 2.0**-64),
    ],
)
def test_values(expression: object, value: object) -> None:
    assert evaluate(expression, SIZES) == value


ABSURD = [
    *("9**9**9", "10**10**8", "2 ** -99999999999", "T ** 1e9", "2 ** 64 + 1", "-(2 ** 64 + 1)", "1" * 999),
    *("dtype * T", "rows * 10 ** 9", "max(rows, 1)", "'x' * 9", "b'x'", "(-1) ** 0.5", "sqrt(-1)", "ceil_div(T, 0)"),
    *("-" * 900 + "1", "T" + " + T" * 999, "(" * 900 + "1" + ")" * 900, "1+" * 400 + "1" * 300),
]


@pytest.mark.parametrize(
    "expression",
    ["U", "__import__('os')", "T.real", "[T]", "T if T else B", "T +", "T / 0", "dtype * 2.5", *ABSURD],
    ids=lambda expression: expression[:16],
)
def test_refused(expression: str) -> None:
    with pytest.raises(UserError) as raised:
        evaluate(expression, SIZES)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 2000
