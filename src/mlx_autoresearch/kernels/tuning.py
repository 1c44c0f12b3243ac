"""Measures an operation's implementations on this machine and says which is best.

A kernel is also checked, values and gradients: one that fails, or is much farther from composed MLX in float32 than
composed MLX in the same precision is, is never the better one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import mlx.core as mx

from mlx_autoresearch.errors import raise_interruption
from mlx_autoresearch.plain_text import one_line

from .alternatives import Alternatives, random_like

SECONDS = 0.2  # of measuring, for each implementation
_NEAR = 1.05
# Norm of the error over the norm: three times that of composed MLX is allowed, and this much in any case. In float32
# GPUs multiply matrices with fewer digits than our kernels.
_TIMES = 3.0
_FLOOR = {mx.float32: 5e-3, mx.float16: 5e-3, mx.bfloat16: 1e-2}
_LONGEST = 300  # characters of an error


@dataclass(frozen=True)
class Measurement:
    """One implementation, forward and backward pass together; where `failure` says why, numbers may be missing."""

    milliseconds: float | None = None
    peak_mb: float | None = None  # MiB of memory beyond the inputs
    error: float | None = None  # the largest, in units of the allowed error: above 1 is wrong
    failure: str | None = None


def measure(
    operation: Alternatives,
    arrays: tuple[mx.array, ...],
    settings: dict,
    language: Literal["metal", "cuda"],
    before_a_kernel: Callable[[str, dict[str, Measurement]], None] = lambda name, measured: None,
) -> dict[str, Measurement]:
    """All implementations on arrays like the given ones: {"mlx": ..., language: ..., "language variant": ...}.

    before_a_kernel: called with its name, and what was measured so far, before one of ours runs for the first time.
    """
    example = operation.example(*arrays, **settings)
    cotangents = random_like(*_outputs(operation, "mlx", example, settings))  # whose shapes are all that is used
    mx.eval(example, cotangents)
    composed = forward_backward(operation, "mlx", example, cotangents, settings)
    measured = {"mlx": _measure(composed)}
    for name in operation.names(language):
        before_a_kernel(name, measured)
        custom = forward_backward(operation, name, example, cotangents, settings)
        kernel = _measure(custom)
        if measured["mlx"].failure is None and kernel.failure is None:
            kernel = _checked(kernel, custom, composed, _in_float32(operation, example, cotangents, settings))
        measured[name] = kernel
    return measured


def best(measured: dict[str, Measurement]) -> str:
    """The fastest one; of two within 5% of each other the one that needs less memory; never one that failed.

    Where not even composed MLX could be measured, as for lack of memory, a kernel may still do; else it is "mlx".
    """
    chosen = "mlx"
    for name, custom in measured.items():
        if name != "mlx" and custom.failure is None and _beats(custom, measured[chosen]):
            chosen = name
    return chosen


def _beats(custom: Measurement, other: Measurement) -> bool:
    if custom.milliseconds is None or other.milliseconds is None:
        return custom.milliseconds is not None
    if max(other.milliseconds, custom.milliseconds) < _NEAR * min(other.milliseconds, custom.milliseconds):
        return (custom.peak_mb or 0) < (other.peak_mb or 0)
    return custom.milliseconds < other.milliseconds


def _outputs(operation: Alternatives, chosen: Any, arrays: Iterable[mx.array], settings: dict) -> list[mx.array]:
    out = operation.run(chosen, tuple(arrays), settings)
    return list(out) if isinstance(out, tuple) else [out]


def forward_backward(
    operation: Alternatives,
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
        while spent < SECONDS:
            took = _seconds(call, calls)
            spent += took
            seconds = min(seconds, took / calls)
    except (RuntimeError, ValueError) as error:  # a kernel that does not compile or take these shapes; no memory left
        raise_interruption(error)
        return Measurement(failure=one_line(str(error), _LONGEST))
    finally:
        mx.clear_cache()
    return Measurement(1000 * seconds, peak)


def _seconds(call: Callable[[], list[mx.array]], calls: int) -> float:
    start = time.perf_counter()
    mx.eval([call() for _ in range(calls)])
    return time.perf_counter() - start


def _in_float32(
    operation: Alternatives, example: tuple[mx.array, ...], cotangents: tuple[mx.array, ...], settings: dict
) -> Callable[[], list[mx.array]]:
    """What is exact, composed MLX unless the operation says otherwise, on the same values with every float widened."""
    wide_example, wide_cotangents = (
        tuple(x.astype(mx.float32) if mx.issubdtype(x.dtype, mx.floating) else x for x in arrays)
        for arrays in (example, cotangents)
    )
    precision = {"dtype": mx.float32} if "dtype" in settings else {}
    exact = replace(operation, composed=operation.exact or operation.composed)
    return forward_backward(exact, "mlx", wide_example, wide_cotangents, settings | precision)


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
        raise_interruption(error)
        return replace(measured, failure=f"it could not be checked: {one_line(str(error), _LONGEST)}")
    return replace(measured, error=worst, failure=None if worst <= 1 else "its results are wrong")


def _relative_error(x: mx.array, right: mx.array) -> float:
    if x.shape != right.shape:
        return float("inf")
    difference, size = (float(mx.linalg.norm(y).item()) for y in (x.astype(mx.float32) - right, right))  # type: ignore[arg-type]
    return difference / size if size else difference and float("inf")
