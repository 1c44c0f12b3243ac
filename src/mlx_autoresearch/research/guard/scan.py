"""Reads changed code before it is run: a first line of defence, cheap, and no proof.

What it cannot see the processes' confinement and the evaluator must hold: Python offers endless ways round a reader.
Only what a change adds counts; what the file did before is allowed.
"""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from collections import Counter
from contextlib import suppress

from mlx_autoresearch.plain_text import one_line

from .reader import problems

_LARGEST = 256 * 1024  # bytes of a file; the recipe's largest has 13,000
_MOST = 20  # problems that are told of one file


def scan(path: str, new: bytes, old: bytes | None) -> list[str]:
    """What is not allowed in `new`, the content of a .py file, and was not in `old`; one line each."""
    try:
        found = _read(path, new)
    except _Unreadable as error:
        return [f"{path}{error}"]
    before: Counter[str] = Counter()
    if old is not None:
        with suppress(_Unreadable):
            before.update(problem for _, problem in _read(path, old))
    added = []
    for line, problem in found:
        if before[problem]:
            before[problem] -= 1
        else:
            added.append(f"{path}:{line}: {one_line(problem)}")
    return added if len(added) <= _MOST else [*added[:_MOST], f"{path}: and {len(added) - _MOST} more"]


class _Unreadable(Exception):
    """The message goes after the file's name."""


def _read(path: str, content: bytes) -> list[tuple[int, str]]:
    """Lines and problems. Raises _Unreadable for what Python would not take as UTF-8 source, and for long files."""
    if len(content) > _LARGEST:
        raise _Unreadable(f": has {len(content):,} bytes; {_LARGEST:,} are allowed")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        if encoding not in ("utf-8", "utf-8-sig"):
            raise _Unreadable(f":1: is declared as {one_line(encoding, 40)}; use UTF-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the code read, to this process's terminal
            return sorted(problems(ast.parse(content.decode(encoding)), path))
    except UnicodeDecodeError:
        raise _Unreadable(": is not UTF-8 text") from None
    except (RecursionError, MemoryError, SystemError):
        raise _Unreadable(": syntax error: it is nested too deeply") from None
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        message = one_line(str(getattr(error, "msg", error)))
        raise _Unreadable(f"{f':{line}' if line else ''}: syntax error: {message}") from None
