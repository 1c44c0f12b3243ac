"""Puts a fast BLAS in front of the reference BLAS that MLX's wheels for Linux link.

The reference BLAS multiplies matrices 30 to 60 times slower than Intel MKL. A library opened with RTLD_GLOBAL before
`mlx.core` is first imported comes first in ELF symbol lookup, so MLX then calls that library's `cblas_sgemm`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from mlx_autoresearch.errors import UserError

from . import system

MKL = "Intel MKL"
OPENBLAS = "OpenBLAS"
REFERENCE = "reference BLAS"
INSTALL = {
    "x86_64": "pip install mkl",
    "aarch64": "install the system's OpenBLAS (Debian and Ubuntu: apt install libopenblas0)",
}


def load() -> None:
    """Opens Intel MKL, or else the system's OpenBLAS, so that MLX multiplies matrices with it; does nothing off Linux.

    Must run before anything imports `mlx.core`. Warns once, with what to do, when that came too late and when there
    is no MKL on x86-64. Sets MKL_CBWR and OMP_NUM_THREADS only where the user has not.
    """
    if not system.is_linux() or _symbol("cblas_sgemm"):  # the user has put one in front, by LD_PRELOAD for example
        return
    # MKL then promises the same bits from run to run however buffers are aligned, at no measurable cost. AUTO,STRICT
    # would give the same bits for any number of threads as well, but takes 10 to 20% of the speed.
    os.environ.setdefault("MKL_CBWR", "AUTO")
    if (quota := cpu_quota()) and quota < len(os.sched_getaffinity(0)):  # else a thread for each of the host's CPUs
        os.environ.setdefault("OMP_NUM_THREADS", str(quota))

    too_late = "mlx.core" in sys.modules
    for library in _libraries():
        try:
            ctypes.CDLL(library, mode=ctypes.RTLD_LOCAL if too_late else ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        if too_late and _links_reference():
            _warn("matrix products take 30 times longer: import mlx_autoresearch before anything imports mlx.core")
        return
    if system.processor() == "x86_64" and _links_reference():
        _warn(f"MLX multiplies matrices with the reference BLAS, 30 times slower than Intel MKL: {INSTALL['x86_64']}")


def name() -> str:
    """The BLAS that MLX's CPU backend calls in this process."""
    if system.is_macos():
        return "Accelerate"
    if _symbol("MKL_Get_Max_Threads"):
        return MKL
    if _symbol("openblas_get_num_threads"):
        return OPENBLAS
    if _symbol("cblas_sgemm"):
        return "a preloaded BLAS"
    return REFERENCE if _links_reference() else "the BLAS that MLX was built with"


def threads() -> int | None:
    """How many threads a matrix product may use; None where the BLAS does not say."""
    for function in ("MKL_Get_Max_Threads", "openblas_get_num_threads"):
        if _symbol(function):
            return int(getattr(ctypes.CDLL(None), function)())
    return 1 if name() == REFERENCE else None


def cpu_quota() -> int | None:
    """CPUs that a Linux container's quota allows, rounded up; None where there is no quota (cgroup v2, `cpu.max`)."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return -(-int(quota) // int(period))
    except (OSError, ValueError):  # no cgroup, or "max"
        return None


def require_mlx() -> None:
    """Raises `UserError`, saying what to install, where `mlx.core` cannot be imported."""
    try:
        import mlx.core  # noqa: F401
    except ImportError as error:
        if system.is_macos():
            raise UserError(
                f"MLX does not load ({error}): it needs macOS 14 or newer and a Python for Apple silicon, and this one "
                f"is for {system.processor()}; delete .venv and call make again"
            ) from error
        raise UserError(
            f"MLX does not load ({error}); on Linux its backend is an extra: install mlx_autoresearch[cpu], "
            "or mlx_autoresearch[cuda] on a machine with an NVIDIA driver"
        ) from error


def _libraries() -> Iterator[str]:
    """What could be opened, best first: MKL's dispatcher from its wheel, then an OpenBLAS that the linker finds."""
    for scheme in ("prefix", "user"):  # where wheels put their data files
        folder = Path(sysconfig.get_path("data", sysconfig.get_preferred_scheme(scheme)), "lib")
        if folder.is_dir():  # not glob: importing that takes longer than opening MKL
            yield from (str(folder / file) for file in sorted(os.listdir(folder)) if file.startswith("libmkl_rt.so"))
    yield "libopenblas.so.0"


def _links_reference() -> bool:
    """Whether the MLX installed here is a wheel that carries the reference BLAS and computes on the CPU."""
    spec = importlib.util.find_spec("mlx")
    return any(Path(p).with_name("mlx_cpu.libs").is_dir() for p in (spec and spec.submodule_search_locations) or [])


def _symbol(function: str) -> bool:
    """Whether `function` is visible to every library in this process."""
    return hasattr(ctypes.CDLL(None), function)


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=3)
