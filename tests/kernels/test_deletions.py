"""The README's table of deletions is that of the kernels as they are, and a sample of it holds."""

from __future__ import annotations

import random

import pytest

from mlx_autoresearch.kernels.registry import find_kernel, kernel_folder, kernel_names
from tests.support.compiler_paths import needs_clang

from .deletions import deletions, row

TABLE = (kernel_folder() / "README.md").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", kernel_names())
def test_every_deletion_is_in_the_table_and_none_went_unnoticed(name: str) -> None:
    listed = [line for line in TABLE if line.startswith(f"| {name} | ")]
    for deletion in deletions(find_kernel(name)):
        found = [line.removeprefix(row(deletion)) for line in listed if line.startswith(row(deletion))]
        assert found, f"run tests/kernels/deletions.py: {row(deletion)} is not in the README"
        assert not any("nothing" in what for what in found)


@needs_clang
@pytest.mark.parametrize("name", kernel_names())
def test_a_deletion_is_found(name: str) -> None:
    own = [deletion for deletion in deletions(find_kernel(name)) if deletion.place[0] == f"{name}.metal"]
    deletion = random.Random(name).choice(own)
    assert f"{row(deletion)}{deletion.found()} |" in TABLE


def test_conditions_lose_each_term_and_clamps_each_side() -> None:
    file = find_kernel("flash_attention_dkdv")
    edits = {(deletion.was, deletion.kept) for deletion in deletions(file)}
    condition = "q0 + BQ > first_key && q0 <= last_key + window"
    assert {(condition, "q0 + BQ > first_key"), (condition, "q0 <= last_key + window"), ("tid < BQ", "true")} <= edits
    assert {("min(key, length - 1)", "(key)"), ("min(key, length - 1)", "(length - 1)")} <= edits
    assert ("threadgroup_barrier(mem_flags::mem_threadgroup);", ";") in edits


def test_what_only_cuda_compiles_is_not_deleted() -> None:
    deleted = {deletion.was for deletion in deletions(find_kernel("flash_attention_forward"))}
    assert "i < 0" not in deleted
    assert "bytes > 256" not in deleted
    assert "bytes > 128" in deleted
