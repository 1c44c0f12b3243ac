"""How much code a file holds, so that comments, blank lines and layout are neither code nor simplification."""

from __future__ import annotations

import ast
import re

# Of C++ and YAML: comments and blanks, which do not count, then names and numbers, strings, and single signs. One that
# is not closed ends with the file, or the line: no character is looked at twice, however many of them there are.
_IGNORED = r"//[^\n]*|/\*.*?(?:\*/|\Z)|\s+"
_IGNORED_IN_YAML = r"\#[^\n]*|\s+"
_TOKEN = r'[\w.]+|"(?:\\.|[^"\\\n])*+"?|.'


def code_size(path: str, content: bytes | None) -> int:
    """The size of a file in nodes of Python's syntax tree, docstrings left out; of other languages in tokens.

    Content that is no Python is counted by tokens too, and None, no file, as an empty one.
    """
    text = (content or b"").decode("utf-8", errors="replace")
    if path.endswith(".py"):
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            pass
        else:
            return sum(1 for _ in ast.walk(_without_docstrings(tree)))
    ignored = _IGNORED_IN_YAML if path.endswith((".yaml", ".py")) else _IGNORED
    found = re.finditer(f"(?P<ignored>{ignored})|{_TOKEN}", text, re.DOTALL)
    return sum(match["ignored"] is None for match in found)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    """Expressions that are a constant do nothing, wherever they stand."""
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            statements = getattr(node, field, None)
            if isinstance(statements, list):
                kept = [s for s in statements if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
                setattr(node, field, kept)
    return tree
