"""Less code is less of what a program does, not of what explains it."""

from __future__ import annotations

import pytest

from mlx_autoresearch.research.code_size import code_size

PYTHON = b'''"""A module."""

import math


def f(x):  # doubles
    """A function."""
    y = 2 * x

    return y
'''
METAL = b"""// doubles
uint i = thread_position_in_grid.x; /* the
element */
if (i < n) y[i] = 2.0f * x[i];
"""


@pytest.mark.parametrize(
    "same",
    [
        PYTHON.replace(b"  # doubles", b""),
        PYTHON.replace(b"\n\n", b"\n"),
        PYTHON.replace(b'    """A function."""\n', b""),
        PYTHON.replace(b'"""A module."""\n', b""),
        PYTHON.replace(b"    y = 2 * x\n\n    return y", b"    y = (2 * x); return y"),
        PYTHON.replace(b"y", b"product"),
        PYTHON.replace(b"    return", b"    'a remark'\n    ...\n    return"),
    ],
    ids=range(7),
)
def test_comments_blank_lines_docstrings_and_layout_are_no_python(same: bytes) -> None:
    assert code_size("a.py", same) == code_size("a.py", PYTHON) > 10


def test_less_is_less() -> None:
    assert code_size("a.py", PYTHON.replace(b"import math\n", b"")) < code_size("a.py", PYTHON)
    assert code_size("a.py", PYTHON.replace(b"2 * x", b"x")) < code_size("a.py", PYTHON)
    assert code_size("a.metal", METAL.replace(b"2.0f * ", b"")) < code_size("a.metal", METAL)
    assert code_size("a.py", None) == code_size("a.py", b"")
    assert code_size("a.metal", None) == code_size("a.metal", b"") == 0


@pytest.mark.parametrize(
    "same",
    [METAL.replace(b"// doubles\n", b""), METAL.replace(b"; /* the\nelement */", b";"), METAL.replace(b"\n", b"\n\n")],
)
def test_comments_and_layout_are_no_metal(same: bytes) -> None:
    assert code_size("a.metal", same) == code_size("a.metal", METAL) > 20
    assert code_size("a.h", b'a = "// no comment";') == code_size("a.h", b'a = "x";')


def test_comments_are_no_yaml() -> None:
    assert code_size("a.yaml", b"# why\na: [1, 2] # two\n") == code_size("a.yaml", b"a: [1, 2]")


@pytest.mark.parametrize("broken", [b"def f(:\n    pass\n", b"\0", b"\xff\xfe", b"(" * 5000, b"-" * 100_000 + b"1"])
def test_what_is_no_python_is_counted_all_the_same(broken: bytes) -> None:
    assert code_size("a.py", broken) > 0
