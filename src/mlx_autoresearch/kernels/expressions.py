"""Arithmetic on sizes, as it stands in a kernel's YAML: `ceil_div(T, 32) * B`."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.simulator.arrays import DTYPES

_LONGEST = 1000  # characters of an expression
_LARGEST = 2**64  # of a whole number
_LARGEST_POWER = 64

_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: lambda a, b: operator.pow(a, _within(b, _LARGEST_POWER)),
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "ceil_div": lambda a, b: -(-a // b),
    "log2": math.log2,
    "max": max,
    "min": min,
    "sqrt": math.sqrt,
}


def _within(number: Any, largest: int) -> int | float:
    """The number itself. Raises TypeError for anything else, and ValueError for one beyond ±largest."""
    if not isinstance(number, int | float):
        raise TypeError(f"{type(number).__name__} is no number")
    if isinstance(number, int) and abs(number) > largest:
        raise ValueError(f"a whole number is beyond {largest}")
    return number


def evaluate(expression: Any, sizes: Mapping[str, Any]) -> Any:
    """The value of an expression over named sizes; anything but a string is its own value.

    A name is a size, or else a dtype. Raises UserError for anything else, and for whole numbers beyond ±2^64.
    """
    if not isinstance(expression, str):
        return expression
    if len(expression) > _LONGEST:
        raise UserError(f"kernels: {expression!r:.60}... has more than {_LONGEST} characters")

    def number(node: ast.expr) -> int | float:
        return _within(value(node), _LARGEST)

    def value(node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=int() | float() as constant):
                return _within(constant, _LARGEST)
            case ast.Name(id=name) if name in sizes:
                return sizes[name]
            case ast.Name(id=name) if name in DTYPES:
                return name
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -number(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _within(_OPERATORS[type(op)](number(left), number(right)), _LARGEST)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
                return _FUNCTIONS[name](*map(number, arguments))
            case ast.Name(id=name):
                raise UserError(
                    f"kernels: {name!r} in {expression!r} is unknown; known are the sizes {', '.join(sizes) or 'none'} "
                    f"and the dtypes {', '.join(DTYPES)}"
                )
        raise UserError(f"kernels: {expression!r} is not arithmetic on sizes")

    try:
        return value(ast.parse(expression.strip(), mode="eval").body)
    except (RecursionError, MemoryError):
        raise UserError(f"kernels: {expression!r:.60}... is nested too deeply") from None
    except (SyntaxError, ArithmeticError, TypeError, ValueError) as error:
        raise UserError(f"kernels: cannot evaluate {expression!r}: {error}") from None
