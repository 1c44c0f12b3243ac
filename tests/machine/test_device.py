"""Facts about the machine, checked against what the operating system says and against a made-up clock."""

import json
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_autoresearch.machine import device
from mlx_autoresearch.machine.paths import cache_dir

on_cpu = pytest.mark.skipif(device.is_gpu(), reason="the default device is a GPU")


@pytest.mark.parametrize(
    ("name", "flops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.5e12),
        ("NVIDIA H200", 989.5e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("Apple M4 Max", None),
        ("", None),
    ],
)
def test_published_peak_is_for_the_whole_device_only(name: str, flops: float | None):
    assert device.published_peak_flops(name, mx.bfloat16) == flops
    assert device.published_peak_flops(name, mx.float32) is None


def test_peak_counts_two_operations_per_multiplication(monkeypatch: pytest.MonkeyPatch):
    ticks = count(step=0.025)  # every product seems to take 25 ms, so the first size is the one
    monkeypatch.setattr(device.time, "perf_counter", lambda: next(ticks))
    assert device.measure_matmul_flops(mx.float32) == pytest.approx(2 * 256**3 / 0.025)


def test_measuring_leaves_the_seeded_generator_alone(monkeypatch: pytest.MonkeyPatch):
    ticks = count(step=0.025)
    monkeypatch.setattr(device.time, "perf_counter", lambda: next(ticks))
    mx.random.seed(3)
    expected = np.array(mx.random.normal((4,)))
    mx.random.seed(3)
    device.measure_matmul_flops(mx.float32)
    np.testing.assert_array_equal(np.array(mx.random.normal((4,))), expected)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[float], list[mx.Dtype]]:
    """Makes every measurement give the rate it is called with; returns the list of what was measured."""
    monkeypatch.setenv("MLX_AUTORESEARCH_CACHE", str(tmp_path / "cache"))
    calls: list[mx.Dtype] = []

    def gives(rate: float) -> list[mx.Dtype]:
        monkeypatch.setattr(device, "measure_matmul_flops", lambda dtype: calls.append(dtype) or rate)
        return calls

    return gives


def test_peak_is_measured_once_per_dtype(measured: Callable[[float], list[mx.Dtype]]):
    calls = measured(5e9)
    assert [device.matmul_peak_flops(mx.float32) for _ in range(2)] == [5e9, 5e9]
    assert device.matmul_peak_flops(mx.bfloat16) == 5e9
    assert calls == [mx.float32, mx.bfloat16]


def test_peak_depends_on_blas_and_threads(measured: Callable[[float], list[mx.Dtype]], monkeypatch: pytest.MonkeyPatch):
    calls = measured(5e9)
    monkeypatch.setattr(device, "is_gpu", lambda: False)
    device.matmul_peak_flops(mx.float32)
    monkeypatch.setattr(device.blas, "threads", lambda: 99)
    device.matmul_peak_flops(mx.float32)
    monkeypatch.setattr(device.blas, "name", lambda: "another")
    device.matmul_peak_flops(mx.float32)
    assert len(calls) == 3


def test_measuring_again_keeps_the_greater(measured: Callable[[float], list[mx.Dtype]]):
    for rate, peak in [(5e9, 5e9), (4e9, 5e9), (6e9, 6e9)]:
        measured(rate)
        assert device.matmul_peak_flops(mx.float32, again=True) == peak
    assert device.matmul_peak_flops(mx.float32) == 6e9


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"x": []}', "\xff"])
def test_a_damaged_record_of_peaks_is_replaced(measured: Callable[[float], list[mx.Dtype]], content: str):
    measured(5e9)
    file = cache_dir() / "matmul_peak.json"
    file.parent.mkdir()
    file.write_text(content, encoding="latin-1")
    assert device.matmul_peak_flops(mx.float32) == 5e9
    assert list(json.loads(file.read_text()).values()) == [5e9]
    assert os.listdir(file.parent) == [file.name]


def test_a_cache_that_cannot_be_written_does_no_harm(measured: Callable[[float], list[mx.Dtype]]):
    measured(5e9)
    cache_dir().write_text("a file where the folder should be")
    assert device.matmul_peak_flops(mx.float32) == 5e9


@on_cpu
def test_a_cpu_computes_in_float32_and_has_the_machines_memory():
    assert device.default_compute_dtype() == mx.float32
    assert device.kernel_backend() is None
    limits = device.memory_limits()
    assert limits.total <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert limits.recommended == limits.total > 2**28
    assert limits.mlx_limit == mx.get_memory_limit()


@pytest.mark.parametrize(
    ("info", "dtype"),
    [
        ({"device_name": "Apple M1"}, mx.float16),
        ({"device_name": "Apple M1 Pro"}, mx.float16),
        ({"device_name": "Apple M1 Ultra"}, mx.float16),
        ({"device_name": "Apple M2"}, mx.float16),
        ({"device_name": "Apple M2 Ultra"}, mx.float16),
        ({"device_name": "Apple M3"}, mx.bfloat16),
        ({"device_name": "Apple M4 Max"}, mx.bfloat16),
        ({"device_name": "Apple M5"}, mx.bfloat16),
        ({"device_name": "Apple M10"}, mx.bfloat16),
        ({"device_name": "Apple M21 Pro"}, mx.bfloat16),
        ({"device_name": "Apple Paravirtual device"}, mx.bfloat16),
        ({"device_name": "NVIDIA H200", "compute_capability_major": 9, "compute_capability_minor": 0}, mx.bfloat16),
        ({"device_name": "NVIDIA A100-SXM4-80GB", "compute_capability_major": 8}, mx.bfloat16),
        ({"device_name": "NVIDIA GeForce RTX 5090", "compute_capability_major": 12}, mx.bfloat16),
        ({"device_name": "Tesla T4", "compute_capability_major": 7, "compute_capability_minor": 5}, mx.float16),
        ({"device_name": "NVIDIA H200"}, mx.bfloat16),
        ({}, mx.bfloat16),
    ],
    ids=lambda value: value.get("device_name") if isinstance(value, dict) else None,
)
def test_a_gpu_computes_in_the_half_precision_that_it_has(monkeypatch: pytest.MonkeyPatch, info: dict, dtype: mx.Dtype):
    monkeypatch.setattr(mx, "device_info", lambda: info)
    monkeypatch.setattr(device, "is_gpu", lambda: True)
    assert device.default_compute_dtype() == dtype
    monkeypatch.setattr(device, "is_gpu", lambda: False)
    assert device.default_compute_dtype() == mx.float32


def test_a_gpus_memory_is_the_gpus(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mx, "device_info", lambda: {"memory_size": 64, "max_recommended_working_set_size": 48})
    assert (device.memory_limits().total, device.memory_limits().recommended) == (64, 48)
    monkeypatch.setattr(mx, "device_info", lambda: {"total_memory": 80, "free_memory": 70})
    assert (device.memory_limits().total, device.memory_limits().recommended) == (80, 80)


@pytest.mark.parametrize(("script", "expected"), [("exit 0", True), ("exit 1", False), (None, False)])
def test_compiler_must_exist_and_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str | None, expected: bool
):
    if script is not None:
        (tmp_path / "g++").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "g++").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert device.cpu_compiler_available.__wrapped__() is expected


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("MLX_AUTORESEARCH_CACHE", raising=False)
    assert cache_dir() == Path("/home/ada/.cache/mlx_autoresearch")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == Path("/xdg/mlx_autoresearch")
    monkeypatch.setenv("MLX_AUTORESEARCH_CACHE", "~/own")
    assert cache_dir() == Path("/home/ada/own")
