"""What this machine is: its device, memory and compiler, and how fast it multiplies matrices."""

from __future__ import annotations

import json
import re
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import mlx.core as mx

from mlx_autoresearch.errors import RunFailed
from mlx_autoresearch.plain_text import one_line

from . import blas, system
from .files import write_atomically
from .memory import usable_memory
from .paths import cache_dir

# Dense bfloat16 and float16 with float32 accumulation, FLOP/s, from NVIDIA's data sheets and architecture white papers
# (half the figure where those count 2:4 sparsity). Names are as the driver writes them, in full: a laptop part or a
# slice of a GPU (MIG) must not pass for the whole. Apple publishes no such figure, and a chip's name does not give its
# number of GPU cores.
PEAKS = "matmul_peak.json"  # in the cache folder
_PUBLISHED_PEAK = {
    r"NVIDIA B200": 2.25e15,
    r"NVIDIA (H100 80GB HBM3|H200|GH200 480GB|GH200 144G HBM3e)": 989.5e12,
    r"NVIDIA H200 NVL": 835.5e12,
    r"NVIDIA H100 NVL": 835.5e12,
    r"NVIDIA H100 PCIe": 756e12,
    r"NVIDIA A100( 80GB PCIe|-SXM4-40GB|-SXM4-80GB|-PCIE-40GB)": 312e12,
    r"NVIDIA L40S": 362e12,
    r"NVIDIA L40": 181e12,
    r"NVIDIA A30": 165e12,
    r"NVIDIA L4": 121e12,
    r"NVIDIA A40": 149.7e12,
    r"NVIDIA GeForce RTX 5090": 209.5e12,
    r"NVIDIA GeForce RTX 4090": 165.2e12,
    r"NVIDIA GeForce RTX 3090": 71e12,
}


@dataclass(frozen=True)
class MemoryLimits:
    """Bytes of memory: in all, that the device recommends a process to stay within, and that MLX will ask for."""

    total: int
    recommended: int
    mlx_limit: int


def is_gpu() -> bool:
    """Whether MLX computes on a GPU by default."""
    return mx.default_device().type == mx.gpu


def require_working() -> None:
    """Raise RunFailed where the default device computes no more, as a GPU that the system has lost."""
    try:
        mx.eval(mx.ones(2) + 1)
    except RuntimeError as error:
        raise RunFailed(f"the device computes no more ({one_line(str(error))}): restart the machine") from None


def device_name() -> str:
    """The default device as its maker writes it, e.g. "Apple M4 Max" or "NVIDIA H200"."""
    return str(mx.device_info().get("device_name", "unknown"))


def kernel_backend() -> Literal["metal", "cuda"] | None:
    """The language in which custom kernels can be run on the default device; None on a CPU."""
    if not is_gpu():
        return None
    return "metal" if mx.metal.is_available() else "cuda"


def architecture() -> str:
    """An NVIDIA GPU's compute capability as its compilers name it, e.g. "sm_90"; "" elsewhere."""
    info = mx.device_info() if kernel_backend() == "cuda" else {}
    major, minor = (info.get(f"compute_capability_{part}") for part in ("major", "minor"))
    return "" if major is None else f"sm_{major}{minor}"


def default_compute_dtype() -> mx.Dtype:
    """The dtype of products in which the default device is fast.

    float32 on a CPU, where MLX sends others past the BLAS to a slow loop. bfloat16 on a GPU, but float16 where bfloat16
    is emulated: in Apple's M1 and M2 families (docs/mac.md has sources), and in NVIDIA's cards before Ampere, of a
    compute capability below 8.0 (CUDA C++ Programming Guide, "Compute Capabilities").
    """
    if not is_gpu():
        return mx.float32
    before_ampere = int(mx.device_info().get("compute_capability_major", 8)) < 8
    emulated = before_ampere or re.match(r"Apple M[12]\b", device_name())
    return mx.float16 if emulated else mx.bfloat16


def memory_limits() -> MemoryLimits:
    """Memory of the default device: the GPU's own, Apple's unified memory, or what this machine or container allows."""
    info = mx.device_info()
    total = int(info.get("memory_size") or info.get("total_memory") or usable_memory())
    return MemoryLimits(total, int(info.get("max_recommended_working_set_size") or total), mx.get_memory_limit())


@lru_cache
def cpu_compiler_available() -> bool:
    """Whether `mx.compile` fuses on the CPU: it needs `g++` on PATH, and without it runs operations one by one."""
    if system.program("g++") is None:  # on a Mac without tools, asking would open a window
        return False
    try:  # the question that MLX asks
        return subprocess.run(["g++", "--version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def published_peak_flops(name: str, dtype: mx.Dtype) -> float | None:
    """The maker's FLOP/s for dense matrix products of `dtype` on the device called `name`; None where unknown."""
    if dtype not in (mx.bfloat16, mx.float16):
        return None
    return next((flops for pattern, flops in _PUBLISHED_PEAK.items() if re.fullmatch(pattern, name)), None)


def matmul_peak_flops(dtype: mx.Dtype, *, again: bool = False) -> float:
    """FLOP/s of the fastest matrix product seen on this device with this MLX, BLAS and number of threads.

    Measured by `measure_matmul_flops` at the first call and at calls with `again`; remembered in `matmul_peak.json` in
    the cache folder, where that can be written.
    """
    where = [device_name(), f"mlx {version('mlx')}", str(dtype).removeprefix("mlx.core.")]
    if not is_gpu():
        where += [blas.name(), f"{blas.threads()} threads"]
    key, file = ", ".join(where), cache_dir() / PEAKS
    peak = _read_peaks(file).get(key)
    if peak is None or again:
        peak = max(peak or 0.0, measure_matmul_flops(dtype))
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps(_read_peaks(file) | {key: peak}, indent=2) + "\n", durable=False)
    return peak


def measure_matmul_flops(dtype: mx.Dtype) -> float:
    """FLOP/s of the fastest of several square products, the largest that takes about 10 ms (n at most 8192).

    The fastest, because whatever else runs on the machine can only make a product slower. Takes under a second.
    """
    n = 256
    while True:
        x = mx.random.normal((n, n), dtype=dtype, key=mx.random.key(0))  # own key: the seed of a run stays untouched
        _seconds(x, 1)
        seconds = _seconds(x, 1)
        if seconds > 0.01 or n == 8192:
            break
        n *= 2
    products = max(1, min(8, round(0.02 / seconds)))  # at once, so that waiting for a fast GPU weighs little
    spent = 0.0
    while spent < 0.3:
        took = _seconds(x, products)
        spent += took
        seconds = min(seconds, took / products)
    mx.clear_cache()
    return 2 * n**3 / seconds


def _seconds(x: mx.array, products: int) -> float:
    start = time.perf_counter()
    mx.eval([x @ x for _ in range(products)])
    return time.perf_counter() - start


def _read_peaks(file: Path) -> dict[str, float]:
    try:
        return {str(key): float(flops) for key, flops in json.loads(file.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):  # not there, or not ours
        return {}
