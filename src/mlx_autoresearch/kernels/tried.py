"""Which values, combinations and tiles the cases of a kernel's YAML try, of those that it can be asked for."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import Any

from mlx_autoresearch.errors import UserError

from .description import Description, KernelFile, Sizes
from .expressions import evaluate

FEW = 12  # combinations of two choices that are all tried


def untried(file: KernelFile, tried: Sequence[Sizes]) -> Iterator[str]:
    """In words: values of `choices` and pairs of them that no case has, and kinds of tiling. `tried` is resolved."""
    yield from _choices(file.description, tried)
    yield from _tilings(file, tried)


def ranges(tried: Sequence[Sizes]) -> dict[str, tuple[float, float]]:
    """The smallest and the largest of each size, by name."""
    found: dict[str, tuple[float, float]] = {}
    for sizes in tried:
        for name, value in sizes.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                least, most = found.get(name, (value, value))
                found[name] = min(least, value), max(most, value)
    return found


def _choices(description: Description, tried: Sequence[Sizes]) -> Iterator[str]:
    # What --exhaustive draws from a list for the template can be asked for, too, but not with everything else.
    drawn = {name: description.random.get(name) for name in description.template.values() if isinstance(name, str)}
    lists = {name: values for name, values in drawn.items() if isinstance(values, list)}
    for name, values in {**lists, **description.choices}.items():
        for value in values:
            if all(sizes.get(name) != value for sizes in tried):
                yield f"{name} = {_text(value)}: never tried"
    for (one, ones), (other, others) in combinations(description.choices.items(), 2):
        if len(ones) * len(others) > FEW:
            continue
        pairs = {(sizes.get(one), sizes.get(other)) for sizes in tried}
        for a, b in product(ones, others):
            alone = all(a != x for x, _ in pairs) or all(b != y for _, y in pairs)  # said above
            if (a, b) not in pairs and not alone:
                yield f"{one} = {_text(a)}, {other} = {_text(b)}: never tried together"


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _tilings(file: KernelFile, tried: Sequence[Sizes]) -> Iterator[str]:
    """Of each `ceil_div(size, tile)`, and each size that the grid cuts into threadgroups: how it was never divided."""
    found: dict[str, set[str]] = {}
    for sizes in tried:
        for text, size, tile, count in _divisions(file.description, sizes):
            kinds = found.setdefault(text, set())
            if size is not None and tile:
                kinds |= {"a partial last tile"} if size % tile else set()
                kinds |= {"exactly one tile"} if size == tile else set()
            kinds |= {"more than two tiles"} if count > 2 else set()
    for text, kinds in found.items():
        for kind in ("a partial last tile", "exactly one tile", "more than two tiles"):
            if kind not in kinds:
                yield f"{text}: never {kind}"


def _divisions(description: Description, sizes: Sizes) -> Iterator[tuple[str, Any, Any, int]]:
    """(expression, size, tile, number of tiles); size and tile are None where a case gives the number itself."""
    given = [*description.grid, *description.threadgroup, *description.template.values()]
    for array in (*description.inputs.values(), *description.outputs.values()):
        given += array.shape or []
    for name, expression in description.derived.items():
        calls = list(_calls(expression))
        if calls and sizes[name] == evaluate(expression, sizes):
            given.append(expression)
        elif calls and ast.unparse(calls[0]) == ast.unparse(ast.parse(str(expression), mode="eval").body):
            yield ast.unparse(calls[0]), None, None, sizes[name]
        else:  # the case gives the value, whatever follows from other sizes
            for call in calls:
                yield ast.unparse(call), None, None, 0
    for expression in given:
        for call in _calls(expression):
            size, tile = (evaluate(ast.unparse(argument), sizes) for argument in call.args)
            yield ast.unparse(call), size, tile, -(-size // tile)
    for threads, threadgroup in zip(description.grid, description.threadgroup, strict=True):
        tile = evaluate(threadgroup, sizes)
        if isinstance(threads, str) and threads.isidentifier() and threads != threadgroup and tile > 1:
            size = evaluate(threads, sizes)
            yield f"grid {threads}, threadgroup {threadgroup}", size, tile, -(-size // tile)


def _calls(expression: Any) -> Iterator[ast.Call]:
    """Every `ceil_div` of two sizes, outer ones first."""
    if isinstance(expression, str):
        try:
            tree = ast.parse(expression.strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise UserError(f"kernels: cannot evaluate {expression!r:.60}") from None
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ceil_div":
                yield node
