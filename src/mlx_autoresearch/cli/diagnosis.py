"""What `mlx-autoresearch doctor` reports: facts about this machine and installation, and what to do about problems."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_autoresearch.data.shards import Manifest
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.machine import blas, mac, system
from mlx_autoresearch.machine.paths import cache_dir
from mlx_autoresearch.machine.versions import installed, package_versions, python_version
from mlx_autoresearch.sandbox import confinement
from mlx_autoresearch.simulator.compilers import find_compiler

if TYPE_CHECKING:
    from mlx_autoresearch.machine.device import MemoryLimits


@dataclass(frozen=True)
class PreparedFolder:
    """A folder of prepared data, or what is wrong with it."""

    path: Path
    manifest: Manifest | None
    problem: str | None


@dataclass(frozen=True)
class Diagnosis:
    """Facts about this machine; rates in FLOP/s, sizes in bytes."""

    versions: dict[str, str]
    device: str
    is_gpu: bool
    memory: MemoryLimits
    compute_dtype: str
    matmul_flops: float
    published_flops: float | None
    blas: str
    blas_threads: int | None
    cpu_compiler: bool
    simulator_compiler: str
    kernels: str | None
    confinement: str
    cache: Path
    prepared: list[PreparedFolder]
    warnings: list[str]


def diagnose() -> Diagnosis:
    """Inspect this machine and measure a matrix product; takes about a second.

    Raises UserError, which says what to install, where MLX does not load.
    """
    blas.require_mlx()
    from mlx_autoresearch.machine import device  # imports mlx.core

    dtype = device.default_compute_dtype()
    prepared = list(prepared_folders(cache_dir() / "prepared"))
    compiler = device.cpu_compiler_available()
    return Diagnosis(
        versions={"python": python_version()} | package_versions(),
        device=device.device_name(),
        is_gpu=device.is_gpu(),
        memory=device.memory_limits(),
        compute_dtype=str(dtype).removeprefix("mlx.core."),
        matmul_flops=device.matmul_peak_flops(dtype, again=True),
        published_flops=device.published_peak_flops(device.device_name(), dtype),
        blas=blas.name(),
        blas_threads=blas.threads(),
        cpu_compiler=compiler,
        simulator_compiler=_simulator_compiler(),
        kernels=device.kernel_backend(),
        confinement=confinement.here(),
        cache=cache_dir(),
        prepared=prepared,
        warnings=[*mac.warnings(device.device_name()), *_warnings(device.is_gpu(), compiler, prepared)],
    )


def prepared_folders(folder: Path) -> Iterator[PreparedFolder]:
    """The prepared data in `folder`, which need not exist: each subfolder's manifest, or what is wrong with it."""
    for path in sorted(folder.glob("[!.]*/")):
        try:
            yield PreparedFolder(path, Manifest.load(path), None)
        except UserError as error:
            yield PreparedFolder(path, None, str(error))


def _simulator_compiler() -> str:
    try:
        return str(find_compiler())
    except UserError as error:
        return f"none: {str(error).removeprefix('simulator: ')}"


def _warnings(is_gpu: bool, compiler: bool, prepared: list[PreparedFolder]) -> Iterator[str]:
    cuda = next((name for name in ("mlx-cuda-13", "mlx-cuda-12") if installed(name)), None)
    if cuda and installed("mlx-cpu"):
        yield f"mlx-cpu and {cuda} overwrite each other's files: uninstall both, then install one again"
    elif not is_gpu and shutil.which("nvidia-smi"):
        yield (
            "this machine has an NVIDIA GPU, but MLX uses the CPU: install mlx_autoresearch[cuda] in a new environment"
        )
    if not is_gpu and blas.name() == blas.REFERENCE:
        remedy = blas.INSTALL.get(system.processor(), "put an OpenBLAS in front with LD_PRELOAD")
        yield f"MLX multiplies matrices with the reference BLAS, 30 times slower than a fast one: {remedy}"
    if not is_gpu and not compiler and not system.is_macos():
        yield "without g++ mx.compile fuses nothing on the CPU: install it (Debian and Ubuntu: apt install g++)"
    yield from (folder.problem for folder in prepared if folder.problem)
    if not prepared:
        yield "no data is prepared: run `mlx-autoresearch prepare`"
