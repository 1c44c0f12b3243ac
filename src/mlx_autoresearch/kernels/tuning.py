"""Measures an operation's implementations on this machine, once for each shape, and remembers the better one.

A kernel is also compared with composed MLX, values and gradients: one that disagrees, or fails, is never chosen. Of two
that are right the faster one is chosen, or, where their times are within 5%, the one that needs less memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import mlx.core as mx

from mlx_autoresearch import device
from mlx_autoresearch.paths import cache_dir

from .registry import kernel_folder

if TYPE_CHECKING:
    from .operation import Operation

_SECONDS = 0.2  # of measuring, for each implementation
_NEAR = 1.05
# Norm of the difference over the norm, of a kernel that is right in this dtype: several times its epsilon.
_AGREEMENT = {mx.float32: 1e-3, mx.float16: 1e-2, mx.bfloat16: 5e-2}


class KernelWarning(UserWarning):
    """A custom kernel failed or disagreed on this machine, and is not used."""


@dataclass(frozen=True)
class Measurement:
    """Forward and backward: milliseconds, peak MiB beyond the inputs, relative difference; or why there are none."""

    milliseconds: float | None = None
    peak_mb: float | None = None
    difference: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Choice:
    """The implementation chosen for a shape, and what was measured of each."""

    chosen: str
    measured: dict[str, Measurement]


def fastest(
    operation: Operation, arrays: tuple[mx.array, ...], settings: dict, language: Literal["metal", "cuda"]
) -> Literal["mlx", "metal", "cuda"]:
    """The better implementation for such arrays: remembered, or measured now."""
    choice = _known().get(operation.describe(arrays, settings)) or measure(operation, arrays, settings, language)
    return choice.chosen  # type: ignore[return-value]


def measure(
    operation: Operation, arrays: tuple[mx.array, ...], settings: dict, language: Literal["metal", "cuda"]
) -> Choice:
    """Measures both implementations on arrays like the given ones, and remembers the result in the cache folder."""
    example = operation.example(*arrays, **settings)
    mx.eval(example)
    composed, custom = (_forward_backward(operation, which, example, settings) for which in ("mlx", language))
    measured = {"mlx": _measure(composed), language: _measure(custom)}
    if all(measurement.error is None for measurement in measured.values()):
        difference = _difference(custom(), composed())
        wrong = None if difference <= 1 else "its results differ from MLX's"
        measured[language] = replace(measured[language], difference=difference, error=wrong)
    choice = Choice(_better(measured, language), measured)
    if error := measured[language].error:
        warnings.warn(f"kernels: {operation.name} on {language}: {error}; MLX is used", KernelWarning, 2)
    _remember(operation.describe(arrays, settings), choice)
    return choice


def choices() -> dict[str, Choice]:
    """Everything remembered for this device, MLX and these kernels: shape -> choice."""
    return dict(_known())


def forget() -> None:
    """Forget all choices of this device, MLX and these kernels."""
    _known().clear()
    _write({machine: entries for machine, entries in _read().items() if machine != _machine()})


def _better(measured: dict[str, Measurement], language: str) -> str:
    mlx, custom = measured["mlx"], measured[language]
    if custom.error or custom.milliseconds is None:
        return "mlx"
    if mlx.milliseconds is None:
        return language  # what does not fit in memory composed may fit with the kernel
    if max(mlx.milliseconds, custom.milliseconds) < _NEAR * min(mlx.milliseconds, custom.milliseconds):
        return language if (custom.peak_mb or 0) < (mlx.peak_mb or 0) else "mlx"
    return language if custom.milliseconds < mlx.milliseconds else "mlx"


def _forward_backward(
    operation: Operation, chosen: Any, example: tuple[mx.array, ...], settings: dict
) -> Callable[[], list[mx.array]]:
    """A compiled call: the result, and its gradients for a fixed random cotangent."""

    def forward(*arrays: mx.array) -> mx.array:
        return operation.run(chosen, arrays, settings)

    def both(*arrays: mx.array) -> list[mx.array]:
        out = forward(*arrays)
        if not operation.differentiable:
            return [out]
        cotangent = mx.random.normal(out.shape, key=mx.random.key(1)).astype(out.dtype)

        def against(*wanted: mx.array) -> mx.array:
            given = list(arrays)
            for position, array in zip(operation.differentiable, wanted, strict=True):
                given[position] = array
            return (forward(*given).astype(mx.float32) * cotangent).sum()

        wanted = tuple(arrays[i] for i in operation.differentiable)
        gradients = mx.grad(against, argnums=tuple(range(len(wanted))))(*wanted)
        return [out, *gradients]

    compiled = mx.compile(both)
    return lambda: compiled(*example)


def _measure(call: Callable[[], list[mx.array]]) -> Measurement:
    try:
        mx.eval(call())  # compiles
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        seconds = _seconds(call, 1)
        peak = (mx.get_peak_memory() - before) / 2**20
        calls = max(1, min(10, round(0.01 / seconds)))  # at once, so that waiting for the GPU weighs little
        spent = 0.0
        while spent < _SECONDS:
            took = _seconds(call, calls)
            spent += took
            seconds = min(seconds, took / calls)
    except (RuntimeError, ValueError) as error:  # a kernel that does not compile or take these shapes; no memory left
        return Measurement(error=" ".join(str(error).split())[:300])
    finally:
        mx.clear_cache()
    return Measurement(1000 * seconds, peak)


def _seconds(call: Callable[[], list[mx.array]], calls: int) -> float:
    start = time.perf_counter()
    mx.eval([call() for _ in range(calls)])
    return time.perf_counter() - start


def _difference(custom: list[mx.array], composed: list[mx.array]) -> float:
    """The largest relative difference of a result or gradient, in units of what its dtype allows; NaN is infinite."""
    worst = 0.0
    for a, b in zip(custom, composed, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return float("inf")
        difference, size = (float(mx.linalg.norm(x.astype(mx.float32)).item()) for x in (a - b, b))  # type: ignore[arg-type]
        relative = difference / size / _AGREEMENT[a.dtype] if size else difference and float("inf")
        worst = max(worst, relative if relative == relative else float("inf"))
    return worst


@lru_cache
def _machine() -> str:
    """What a choice holds for: the device, MLX's version and the kernels' sources."""
    digest = hashlib.sha256()
    for path in sorted(kernel_folder().iterdir()):
        if path.suffix in (".metal", ".h", ".yaml"):
            digest.update(path.name.encode() + path.read_bytes())
    return f"{device.device_name()}, mlx {version('mlx')}, kernels {digest.hexdigest()[:12]}"


def _file() -> Path:
    return cache_dir() / "kernel_choices.json"


@lru_cache
def _known() -> dict[str, Choice]:
    """This process's copy of what is remembered for this machine."""
    known = {}
    with suppress(AttributeError, KeyError, TypeError):  # not ours
        for key, entry in _read().get(_machine(), {}).items():
            measured = {name: Measurement(**values) for name, values in entry["measured"].items()}
            known[key] = Choice(entry["chosen"], measured)
    return known


def _remember(key: str, choice: Choice) -> None:
    _known()[key] = choice
    entries = {key: asdict(choice) for key, choice in _known().items()}
    others = _read()
    _write(others | {_machine(): others.get(_machine(), {}) | entries})


def _write(content: dict[str, Any]) -> None:
    """Replaces the file, atomically; where nothing can be written, nothing is."""
    with suppress(OSError):
        file = _file()
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps(content, indent=2) + "\n")
        new.replace(file)


def _read() -> dict[str, Any]:
    try:
        content = json.loads(_file().read_text())
    except (OSError, ValueError):  # not there, or not ours
        return {}
    return content if isinstance(content, dict) else {}
