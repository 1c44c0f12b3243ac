"""What `mlx-autoresearch bench` found: as a table of 80 columns, and as JSON that a user can publish."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from textwrap import wrap
from typing import Any

from mlx_autoresearch.config.load import settings_of
from mlx_autoresearch.kernels.tuning import Measurement
from mlx_autoresearch.machine.specification import specification, without_names

from .bench import Bench, Measured
from .speed import mfu_percent

FORMAT = 1  # of the JSON
# Settings that a step's cost depends on and that hold no text of the user's; a source of text holds paths.
_PUBLISHED = ("model.", "train.", "optimizer.", "data.vocab_size", "kernels")
_WIDTH = 80


def as_json(bench: Bench, machine: dict[str, Any] | None = None) -> dict[str, Any]:
    """All figures and the machine's specification; seconds, bytes and FLOP/s. No names of users or hosts, no paths."""
    peaks = bench.peaks
    return {
        "format": FORMAT,
        "date": date.today().isoformat(),
        "machine": specification() if machine is None else machine,
        "matrix_products": {
            "dtype": str(peaks.dtype).removeprefix("mlx.core."),
            "flops": peaks.measured,
            "published_flops": peaks.published,
        },
        "configurations": [_configuration(measured, bench) for measured in bench.measured],
        "left_out": {name: without_names(why) for name, why in bench.left_out.items()},
    }


def _configuration(m: Measured, bench: Bench) -> dict[str, Any]:
    peaks, speed = bench.peaks, m.tokens_per_second
    return {
        "name": m.name,
        "settings": {k: v for k, v in settings_of(m.config).items() if k.startswith(_PUBLISHED)},
        "parameters": m.parameters,
        "flops_per_token": m.flops_per_token,
        "choosing_seconds": m.choosing,
        "first_step_seconds": m.first_step,
        "compiling_seconds": m.compiling,
        "step_seconds": m.steps,
        "median_step_seconds": m.median,
        "tokens_per_second": speed,
        "mfu_percent": mfu_percent(m.flops_per_token, speed, peaks.measured),
        "published_mfu_percent": peaks.published and mfu_percent(m.flops_per_token, speed, peaks.published),
        "peak_memory": m.peak_memory,
        "kernels": [
            {
                "operation": what,
                "chosen": chosen,
                "measured": {name: _side(side) for name, side in m.measured[what].measured.items()}
                if what in m.measured
                else {},
            }
            for what, chosen in m.kernels.items()
        ],
    }


def _side(side: Measurement) -> dict[str, Any]:
    content = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(side).items()}
    return content | {"failure": None if side.failure is None else without_names(side.failure)}


def text(bench: Bench, machine: dict[str, Any] | None = None) -> str:
    """The table, for a terminal."""
    return "\n".join(_lines(bench, specification() if machine is None else machine))


def _lines(bench: Bench, machine: dict[str, Any]) -> Iterator[str]:
    packages = machine["packages"]
    yield f"mlx_autoresearch {packages.get('mlx_autoresearch')}, mlx {packages.get('mlx')}, {machine['system']}"
    gpu = f", {machine['gpu_cores']} GPU cores" if machine["gpu_cores"] else ""
    yield f"{machine['chip']}: {machine['cpu_cores']} CPU cores{gpu}, {_gib(machine['memory'])}"
    peaks = bench.peaks
    yield f"matrix products: {peaks.measured / 1e12:.3g} TFLOP/s in {str(peaks.dtype).removeprefix('mlx.core.')}"
    yield ""
    yield f"{'':<10}{'tokens':>8}{'ms a step':>11}{'(min-max)':>19}{'tokens/s':>11}{'MFU':>8}{'memory':>13}"
    for m in bench.measured:
        spread = f"({_step(min(m.steps))}-{_step(max(m.steps))})"
        mfu = mfu_percent(m.flops_per_token, m.tokens_per_second, peaks.measured)
        yield (
            f"{m.name:<10}{m.config.train.total_batch_size:>8,}{_step(m.median):>11}{spread:>19}"
            f"{m.tokens_per_second:>11,.0f}{mfu:>7.1f}%{_gib(m.peak_memory):>13}"
        )
    yield ""
    yield f"{'':<10}{'parameters':>11}{'micro-batches':>15}{'choosing':>11}{'first step':>12}{'compiling':>11}"
    for m in bench.measured:
        micro = f"{m.config.accumulation_steps} x {m.config.train.device_batch_size}x{m.config.model.sequence_len}"
        compiling = "-" if m.compiling is None else f"{m.compiling:.1f} s"
        yield (
            f"{m.name:<10}{m.parameters / 1e6:>10.1f}M{micro:>15}{m.choosing:>9.1f} s{m.first_step:>10.1f} s"
            f"{compiling:>11}"
        )
    for name, why in bench.left_out.items():
        yield from wrap(f"{name} is left out: {why}", _WIDTH, subsequent_indent="    ")
    yield ""
    yield from _kernels(bench.measured)


def _kernels(measured: list[Measured]) -> Iterator[str]:
    known = [(m, what) for m in measured for what in m.kernels if what in m.measured]
    if not known:
        used = sorted({chosen for m in measured for chosen in m.kernels.values()})
        yield f"kernels: {', '.join(used)} everywhere; nothing was measured"
        return
    yield f"{'kernels, forward and backward':<52}{'MLX ms':>9}{'ours ms':>9}  chosen"
    for m, what in known:
        sides = dict(m.measured[what].measured)
        mlx = sides.pop("mlx", Measurement())
        right = [side for side in sides.values() if side.failure is None and side.milliseconds is not None]
        ours = min(right or [*sides.values(), Measurement()], key=lambda side: side.milliseconds or 0.0)
        yield f"{_short(what):<52}{_ms(mlx):>9}{_ms(ours):>9}  {m.kernels[what]}"


def _short(what: str) -> str:
    """An operation's name, the first array's shape and its window, from its description."""
    name, array, *rest = what.split()
    window = next((f" {word}" for word in rest if word.startswith("window=")), "")
    return f"{name} {array}{window}"[:51]


def _ms(side: Measurement) -> str:
    if side.failure is not None:
        return "failed"
    return "-" if side.milliseconds is None else f"{side.milliseconds:.3f}"


def _step(seconds: float) -> str:
    """In milliseconds."""
    return f"{1e3 * seconds:,.0f}" if seconds >= 1 else f"{1e3 * seconds:.1f}"


def _gib(size: int) -> str:
    return f"{size / 2**30:,.2f} GiB"
