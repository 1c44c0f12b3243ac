"""Which compilers this machine has, and marks that skip a test which wants one that it has not.

CI must have clang: test_compilers.py fails there without it, so that nothing is skipped unseen.
"""

from __future__ import annotations

import shutil

import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.simulator import find_compiler


def compiler_path(family: str | None = None) -> str | None:
    """The path of a "clang" or "gcc", or of the best compiler, that the simulator can use; None if there is none."""
    for name in (None, "g++"):  # the best one; then g++, which on a Mac is clang
        try:
            chosen = find_compiler(name)
        except UserError:
            continue
        if family is None or chosen.is_clang == (family == "clang"):
            return shutil.which(chosen.path)
    return None


def _needs(family: str | None = None) -> pytest.MarkDecorator:
    reason = {
        "clang": "no clang the simulator can use: clang++ 17 or newer",
        "gcc": "no gcc the simulator can use: g++ 12 (on arm64: 13) or newer",
    }.get(
        family if compiler_path() else None,
        "no C++ compiler the simulator can use: clang++ 17, g++ 12 (on arm64: 13), or newer",
    )
    return pytest.mark.skipif(compiler_path(family) is None, reason=reason)


needs_compiler, needs_clang, needs_gcc = _needs(), _needs("clang"), _needs("gcc")
each_family = pytest.mark.parametrize(
    "family", [pytest.param("clang", marks=needs_clang), pytest.param("gcc", marks=needs_gcc)]
)
