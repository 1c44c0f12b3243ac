"""`mlx-autoresearch doctor`: this machine's setup, printed."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mlx_autoresearch.machine import mac, system

if TYPE_CHECKING:
    from rich.console import Console

    from .diagnosis import Diagnosis


def doctor() -> None:
    """Check this machine's setup: device, memory, BLAS, compiler, kernels, prepared data."""
    from rich.console import Console

    from .diagnosis import diagnose

    print_diagnosis(diagnose(), Console())


def print_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    """Print `key: value` lines, then the warnings; plain text where `console` is no terminal."""
    from rich.markup import escape

    for key, value in _lines(diagnosis):
        console.print(f"[bold]{key}[/]: {escape(value)}", highlight=False, soft_wrap=True)
    for warning in diagnosis.warnings:
        console.print(f"[yellow]warning[/]: {escape(warning)}", highlight=False, soft_wrap=True)


def _lines(d: Diagnosis) -> Iterator[tuple[str, str]]:
    yield "versions", ", ".join(f"{package} {version}" for package, version in d.versions.items())
    macos = system.macos_version()
    name = f"macOS {macos[0]}.{macos[1]}" if macos else platform.platform()
    wheel = f", MLX's wheel for macOS {built}" if macos and (built := mac.wheel_macos()) else ""
    yield "system", f"{name}, {system.processor()}{wheel}"
    yield "device", f"{d.device} ({'GPU' if d.is_gpu else 'CPU'})"
    sizes = {"in all": d.memory.total, "recommended": d.memory.recommended, "MLX's limit": d.memory.mlx_limit}
    yield "memory", ", ".join(f"{size / 2**30:.1f} GiB {what}" for what, size in sizes.items())
    share = f", {d.matmul_flops / d.published_flops:.0%} of the published peak" if d.published_flops else ""
    yield "matrix products", f"{_flops(d.matmul_flops)} in {d.compute_dtype}{share}"
    threads = f", {d.blas_threads} thread{'s' * (d.blas_threads != 1)}" if d.blas_threads else ""
    yield "BLAS on the CPU", f"{d.blas}{threads}"
    if macos is None:
        yield "C++ compiler for mx.compile on the CPU", "g++" if d.cpu_compiler else "none"
    yield "C++ compiler for the simulator", d.simulator_compiler
    yield "custom kernels", {"metal": "Metal", "cuda": "CUDA"}.get(d.kernels or "", "none: they need a GPU")
    yield "confinement", d.confinement
    yield "cache", str(d.cache)
    for folder in d.prepared:
        if m := folder.manifest:
            tokens = ", ".join(f"{split.tokens:,} {name} tokens" for name, split in m.splits.items())
            yield "prepared", f"{m.source.get('kind')}, vocabulary {m.vocab_size:,}, {tokens}, {folder.path.name}"


def _flops(rate: float) -> str:
    return f"{rate / 1e12:.1f} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:.1f} GFLOP/s"
