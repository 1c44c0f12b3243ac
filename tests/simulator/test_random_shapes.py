"""No correct kernel is accused: every kernel on random sizes, each in its own random order; 216 of them."""

from __future__ import annotations

import random

import pytest

from mlx_autoresearch.kernels.source import load_kernel
from mlx_autoresearch.kernels.verify import run_case
from tests.support.compiler_paths import needs_compiler
from tests.support.mutations import KERNELS

COMBINATIONS = 24
NAMES = sorted(path.stem for path in KERNELS.glob("*.metal"))


@needs_compiler
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_found_and_results_are_right(name: str) -> None:
    file = load_kernel(KERNELS / f"{name}.metal")
    source = random.Random(name)
    for number in range(COMBINATIONS):
        sizes = file.random_sizes(source)
        report = run_case(file, sizes, seed=2 + number)
        assert not report.findings, f"{sizes}, seed {2 + number}: {report.findings[0]}"


def test_there_are_enough_combinations() -> None:
    assert COMBINATIONS * len(NAMES) >= 200
