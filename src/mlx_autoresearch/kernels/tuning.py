"""Measures an operation's implementations on this machine, once for each shape, and remembers the better one.

A kernel is also checked, values and gradients: one that fails, or is much farther from composed MLX in float32 than
composed MLX in the same precision is, is never chosen. Of two that are right the faster one is chosen, or, where their
times are within 5%, the one that needs less memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import mlx.core as mx

from mlx_autoresearch.machine import device
from mlx_autoresearch.machine.paths import cache_dir

from .operation import random_like
from .registry import kernel_folder

if TYPE_CHECKING:
    from .operation import Operation

_SECONDS = 0.2  # of measuring, for each implementation
_NEAR = 1.05
# Norm of the error over the norm: three times that of composed MLX is allowed, and this much in any case. In float32
# GPUs multiply matrices with fewer digits than our kernels.
_TIMES = 3.0
_FLOOR = {mx.float32: 5e-3, mx.float16: 5e-3, mx.bfloat16: 1e-2}


class KernelWarning(UserWarning):
    """A custom kernel failed, or was wrong, on this machine, and is not used."""


@dataclass(frozen=True)
class Measurement:
    """Of both passes: milliseconds, peak MiB beyond the inputs, error in units of the allowed one; or a failure."""

    milliseconds: float | None = None
    peak_mb: float | None = None
    error: float | None = None
    failure: str | None = None


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
    """Measures both implementations on arrays like the given ones, and remembers the result in the cache folder.

    Says so on standard error: compiling for it may take half a minute.
    """
    key = operation.describe(arrays, settings)
    print(f"kernels: measuring {key} (once on this machine)", file=sys.stderr, flush=True)
    example = operation.example(*arrays, **settings)
    cotangents = random_like(*_outputs(operation, "mlx", example, settings))  # whose shapes are all that is used
    mx.eval(example, cotangents)
    composed, custom = (
        _forward_backward(operation, which, example, cotangents, settings) for which in ("mlx", language)
    )
    measured = {"mlx": _measure(composed), language: Measurement(failure="the process did not survive it")}
    _remember(key, Choice("mlx", measured))  # a fault on the GPU may end the process; the next one then knows
    try:
        measured[language] = _measure(custom)
        if all(measurement.failure is None for measurement in measured.values()):
            exact = _in_float32(operation, example, cotangents, settings)
            measured[language] = _checked(measured[language], custom, composed, exact)
    except BaseException:  # somebody stopped us
        forget([key])
        raise
    choice = Choice(_better(measured, language), measured)
    if failure := measured[language].failure:
        warnings.warn(f"kernels: {operation.name} on {language}: {failure}; MLX is used", KernelWarning, 2)
    _remember(key, choice)
    return choice


def choices() -> dict[str, Choice]:
    """Everything remembered for this device, MLX and these kernels: shape -> choice."""
    return dict(_known())


def forget(shapes: Iterable[str]) -> None:
    """Forget the choices for these shapes, as `choices` names them, on this device with this MLX and these kernels."""
    content = _read()
    for key in shapes:
        _known().pop(key, None)
        content.get(_machine(), {}).pop(key, None)
    _write(content)


def _better(measured: dict[str, Measurement], language: str) -> str:
    mlx, custom = measured["mlx"], measured[language]
    if custom.failure or custom.milliseconds is None:
        return "mlx"
    if mlx.milliseconds is None:
        return language  # what does not fit in memory composed may fit with the kernel
    if max(mlx.milliseconds, custom.milliseconds) < _NEAR * min(mlx.milliseconds, custom.milliseconds):
        return language if (custom.peak_mb or 0) < (mlx.peak_mb or 0) else "mlx"
    return language if custom.milliseconds < mlx.milliseconds else "mlx"


def _outputs(operation: Operation, chosen: Any, arrays: Iterable[mx.array], settings: dict) -> list[mx.array]:
    out = operation.run(chosen, tuple(arrays), settings)
    return list(out) if isinstance(out, tuple) else [out]


def _forward_backward(
    operation: Operation,
    chosen: Any,
    example: tuple[mx.array, ...],
    cotangents: tuple[mx.array, ...],
    settings: dict,
) -> Callable[[], list[mx.array]]:
    """A compiled call: the results, and the gradients for these cotangents."""

    def both(arrays: tuple[mx.array, ...], cotangents: tuple[mx.array, ...]) -> list[mx.array]:
        if not operation.differentiable:
            return _outputs(operation, chosen, arrays, settings)

        def of_wanted(*wanted: mx.array) -> list[mx.array]:
            given = list(arrays)
            for position, array in zip(operation.differentiable, wanted, strict=True):
                given[position] = array
            return _outputs(operation, chosen, given, settings)

        out, gradients = mx.vjp(of_wanted, [arrays[i] for i in operation.differentiable], list(cotangents))
        return [*out, *gradients]

    compiled = mx.compile(both)
    return lambda: compiled(example, cotangents)


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
        return Measurement(failure=_one_line(error))
    finally:
        mx.clear_cache()
    return Measurement(1000 * seconds, peak)


def _seconds(call: Callable[[], list[mx.array]], calls: int) -> float:
    start = time.perf_counter()
    mx.eval([call() for _ in range(calls)])
    return time.perf_counter() - start


def _in_float32(
    operation: Operation, example: tuple[mx.array, ...], cotangents: tuple[mx.array, ...], settings: dict
) -> Callable[[], list[mx.array]]:
    """Composed MLX on the same values with every float widened."""
    wide_example, wide_cotangents = (
        tuple(x.astype(mx.float32) if mx.issubdtype(x.dtype, mx.floating) else x for x in arrays)
        for arrays in (example, cotangents)
    )
    precision = {"dtype": mx.float32} if "dtype" in settings else {}
    return _forward_backward(operation, "mlx", wide_example, wide_cotangents, settings | precision)


def _checked(
    measured: Measurement,
    custom: Callable[[], list[mx.array]],
    composed: Callable[[], list[mx.array]],
    exact: Callable[[], list[mx.array]],
) -> Measurement:
    """With the kernel's largest error, of its results and gradients, in units of what is allowed; NaN is infinite."""
    try:
        worst = 0.0
        for ours, theirs, right in zip(custom(), composed(), exact(), strict=True):
            allowed = _TIMES * _relative_error(theirs, right) + _FLOOR[ours.dtype]
            error = _relative_error(ours, right) / allowed
            worst = max(worst, error if error == error else float("inf"))
    except (RuntimeError, ValueError) as error:
        return replace(measured, failure=f"it could not be checked: {_one_line(error)}")
    return replace(measured, error=worst, failure=None if worst <= 1 else "its results are wrong")


def _relative_error(x: mx.array, right: mx.array) -> float:
    if x.shape != right.shape:
        return float("inf")
    difference, size = (float(mx.linalg.norm(y).item()) for y in (x.astype(mx.float32) - right, right))  # type: ignore[arg-type]
    return difference / size if size else difference and float("inf")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


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
