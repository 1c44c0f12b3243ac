"""CUDA's own sources of some kernels: when they take the place of what Metal's are translated to, and how."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels import launch, verify
from mlx_autoresearch.kernels.cuda import as_it_is
from mlx_autoresearch.kernels.launch import launches_on_gpu
from mlx_autoresearch.kernels.registry import find_kernel, kernel_folder, kernel_names
from mlx_autoresearch.kernels.source import load_kernel
from mlx_autoresearch.machine import device

NATIVE = [name for name in kernel_names() if find_kernel(name).cuda]
HOPPER = {"T": 300, "B": 2, "Hk": 3, "D": 128, "dtype": "bfloat16"}


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """A GPU that records what it is given: how kernels are built and, under "called", how they are called."""
    made: list[dict[str, Any]] = []

    def cuda_kernel(name: str, **given: Any) -> Any:
        entry = {"name": name, **given}
        made.append(entry)

        def call(**called: Any) -> list[mx.array]:
            entry["called"] = called
            made.append(made.pop(made.index(entry)))  # the last one called comes last
            return list(map(mx.zeros, called["output_shapes"], called["output_dtypes"]))

        return call

    monkeypatch.setattr(mx.fast, "cuda_kernel", cuda_kernel, raising=False)
    monkeypatch.setattr(device, "kernel_backend", lambda: "cuda")
    monkeypatch.setattr(device, "architecture", lambda: "sm_90")
    caches = (launch._launcher, launch._built, launch._built_native)
    for cache in caches:
        cache.cache_clear()
    yield made
    for cache in caches:
        cache.cache_clear()


def test_attention_has_them() -> None:
    assert NATIVE == ["flash_attention_dkdv", "flash_attention_dq", "flash_attention_forward"]


@pytest.mark.parametrize("name", NATIVE)
def test_they_serve_16_bit_elements_of_some_head_dims_on_one_architecture(name: str) -> None:
    file = find_kernel(name)
    sizes = file.resolve(HOPPER)
    native = file.native("sm_90", sizes)
    assert native is not None
    assert native.launch.grid == (256, 3, 6)
    assert native.launch.threadgroup == (256, 1, 1)
    assert native.launch.output_shapes == file.launch(sizes).output_shapes
    assert 49152 < native.shared_memory <= 232448  # of a block on compute capability 9.0
    assert file.native("sm_80", sizes) is None
    assert file.native("sm_100", sizes) is None
    assert file.native("", sizes) is None
    assert file.native("sm_90", file.resolve(HOPPER | {"dtype": "float32"})) is None
    assert file.native("sm_90", file.resolve(HOPPER | {"D": 96})) is None


@pytest.mark.parametrize("name", NATIVE)
def test_its_text_is_not_translated_and_errors_name_its_own_lines(name: str) -> None:
    kernel = find_kernel(name).cuda["sm_90"]
    source, header = as_it_is(kernel)
    path = kernel_folder() / f"{name}.sm_90.cu"
    first = source.splitlines()[0]
    (line,) = re.findall(rf'^#line (\d+) "{re.escape(path.name)}"$', first)
    assert path.read_text().splitlines()[int(line) - 1 :] == source.splitlines()[1:]
    assert '#line 1 "warpgroup.cuh"' in header
    assert "metal" not in header
    names = set(find_kernel(name).description.inputs) | set(find_kernel(name).description.outputs)
    assert all(re.search(rf"\b{argument}\b", source) for argument in names)


def test_the_gpu_gets_the_own_source_where_there_is_one(built: list[dict[str, Any]]) -> None:
    q, k = mx.zeros((2, 300, 3, 128), mx.bfloat16), mx.zeros((2, 300, 3, 128), mx.bfloat16)
    launch.launch("flash_attention_forward", "cuda", {"q": q, "k": k, "v": k}, **HOPPER, H=3)
    (used,) = [entry for entry in built if "called" in entry]
    assert used["name"].startswith("flash_attention_forward_sm_90_")
    assert used["shared_memory"] == 1024 + 5 * 128 * 2 * 128
    assert used["called"]["grid"] == (256, 3, 6)
    assert used["called"]["template"] == [("T", mx.bfloat16), ("D", 128)]
    q, k = q.astype(mx.float32), k.astype(mx.float32)
    launch.launch("flash_attention_forward", "cuda", {"q": q, "k": k, "v": k}, **(HOPPER | {"dtype": "float32"}), H=3)
    used = built[-1]
    assert not used["name"].startswith("flash_attention_forward_sm_90")
    assert used["shared_memory"] == 0


def test_verification_runs_both_sources_and_the_larger_cases(
    built: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "require_gpu", lambda language: None)
    file = find_kernel("flash_attention_dkdv")
    report = verify.verify_on_gpu(file, "cuda")
    described = file.description
    larger = described.cuda["sm_90"].cases
    tried = [case.sizes for case in report.cases]
    assert all(tried.count(case) == 2 for case in larger)
    assert all(case in tried for case in described.cases)
    by_both = [case for case in described.cases if file.native("sm_90", file.resolve(case))]
    assert len(by_both) >= 2
    assert all(tried.count(case) == 2 for case in by_both)
    assert len(launches_on_gpu(file, "metal", file.resolve(HOPPER))) == 1
    named = {case.findings[0].file for case in report.cases}  # the zeros that this GPU gives are wrong
    assert named == {"flash_attention_dkdv.metal", "flash_attention_dkdv.sm_90.cu"}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("sm_90:", "hopper:", "cuda: 'hopper' is no architecture such as sm_90"),
        ("sm_90:", "sm_80:", "scale.sm_80.cu does not exist"),
        ("grid: [32, 1, 2]", "grid: [32, 1]", "cuda.sm_90.grid: three sizes are needed, got 2"),
        ("shared_memory: 4 * n", "shared_memory: n / 3", "cuda.sm_90.shared_memory: n / 3 is"),
        ("shared_memory: 4 * n", "shared_memory: n * 10 ** 9", "32,000,000,000 bytes; no GPU has more than 232,448"),
        ("when: {n: [32]}", "when: {m: [32]}", "cuda.sm_90.when: unknown size 'm'; known are n"),
        ("shared_memory: 4 * n", "shared: 1", "cuda.sm_90.shared_memory: Field required"),
    ],
)
def test_a_bad_description_is_refused_in_a_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    description = """
inputs: {x: {dtype: float32, shape: [n], min_elements: 8}}
outputs: {y: {dtype: float32, shape: [n]}}
grid: [n, 1, 1]
threadgroup: [32, 1, 1]
cases: [{n: 32}]
cuda:
  sm_90:
    when: {n: [32]}
    grid: [32, 1, 2]
    threadgroup: [32, 1, 1]
    shared_memory: 4 * n
"""
    assert old in description
    (tmp_path / "scale.metal").write_text("y[thread_position_in_grid.x] = x[thread_position_in_grid.x];\n")
    (tmp_path / "scale.sm_90.cu").write_text("y[threadIdx.x] = x[threadIdx.x];\n")
    (tmp_path / "scale.yaml").write_text(description)
    assert load_kernel(tmp_path / "scale.metal").native("sm_90", {"n": 32})
    (tmp_path / "scale.yaml").write_text(description.replace(old, new))
    with pytest.raises(UserError, match=re.escape(says)):
        load_kernel(tmp_path / "scale.metal").native("sm_90", {"n": 32})
