"""Without clang, `simulate` says each time what g++ cannot check; with clang such a warning stays an error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from mlx_autoresearch.simulator import UncheckedWarning
from tests.support.compiler_paths import compiler_path


@pytest.fixture(autouse=True)
def _what_gcc_cannot_check() -> Iterator[None]:
    with warnings.catch_warnings():
        if compiler_path("clang") is None:
            warnings.filterwarnings("ignore", "simulator: not checked: address spaces", UncheckedWarning)
        yield
