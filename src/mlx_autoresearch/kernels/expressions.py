"""Arithmetic on sizes, as it stands in a kernel's YAML: `ceil_div(T, 32) * B`."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.simulator.arrays import DTYPES

_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "ceil_div": lambda a, b: -(-a // b),
    "log2": math.log2,
    "max": max,
    "min": min,
    "sqrt": math.sqrt,
}


def evaluate(expression: Any, sizes: Mapping[str, Any]) -> Any:
    """The value of an expression over named sizes; anything but a string is its own value.

    A name is a size, or else a dtype. Raises UserError for anything else.
    """
    if not isinstance(expression, str):
        return expression

    def value(node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=int() | float() as number):
                return number
            case ast.Name(id=name) if name in sizes:
                return sizes[name]
            case ast.Name(id=name) if name in DTYPES:
                return name
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](value(left), value(right))
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
                return _FUNCTIONS[name](*map(value, arguments))
            case ast.Name(id=name):
                raise UserError(
                    f"kernels: {name!r} in {expression!r} is unknown; known are the sizes {', '.join(sizes) or 'none'} "
                    f"and the dtypes {', '.join(DTYPES)}"
                )
        raise UserError(f"kernels: {expression!r} is not arithmetic on sizes")

    try:
        return value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ArithmeticError, TypeError, ValueError) as error:
        raise UserError(f"kernels: cannot evaluate {expression!r}: {error}") from None
