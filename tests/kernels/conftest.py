"""Kernels are tested in the simulator, or on the GPU where MLX's default device is one: same tests, same budgets."""

from __future__ import annotations

import pytest
from compiler_paths import compiler_path

from mlx_autoresearch import device


@pytest.fixture
def implementation() -> str:
    """What runs kernels here: "metal", "cuda" or "simulator"."""
    if (language := device.kernel_backend()) is not None:
        return language
    if compiler_path() is None:
        pytest.skip("no GPU, and no C++ compiler the simulator can use: clang++ 17, g++ 12, or newer")
    return "simulator"
