"""Draws the page's plots as SVG inside it, without scripts, fonts or further files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from mlx_autoresearch.plain_text import escape, one_line

from .history import FAILURES, History

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 960, 56, 12, 14, 34

Scale = Callable[[float], float]


def staircase(history: History) -> str:
    """Every experiment and the best so far. Hover over a point for its hypothesis; click it for its row."""
    if not history.values:
        return ""
    last = max(r.number for r in history.decided)
    height = 380
    low, high = history.scale
    low -= 2 * (history.sigma or 0.0)
    x = _scale(-0.5, last + 0.5, _LEFT, _WIDTH - _RIGHT)
    y = _scale(high, low - 0.06 * (high - low), _TOP, height - _BOTTOM)
    parts = [_axes(x, y, _ticks(0, last, integers=True), _ticks(low, high), height, "experiment")]
    steps = history.steps
    if steps:
        corners = [(s.number, s.val_bpb) for s in steps] + [(last + 0.5, steps[-1].val_bpb)]
        if history.sigma:
            reach = 2 * history.sigma
            upper = _stairs([(n, v + reach) for n, v in corners])
            lower = _stairs([(n, v - reach) for n, v in corners])
            parts.append(f'<path class="band" d="{_path(x, y, upper + lower[::-1])}Z"/>')
        parts.append(f'<path class="best" d="{_path(x, y, _stairs(corners))}"/>')
    for record in sorted(history.decided, key=lambda r: r.status == "keep"):
        value = record.val_bpb
        at = (x(record.number), y(high if value is None else max(low, min(value, high))))
        measured = "no result" if value is None else f"{value:.4f}"
        title = f"{record.number}: {one_line(record.hypothesis)} | {measured}, {record.status}"
        title += f" | {one_line(record.reason, 300)}" if record.reason else ""
        mark = _mark(record.status, value is None or value > high, *at)
        parts.append(f'<a href="#e{record.number}"><title>{escape(title)}</title>{mark}</a>')
    return _svg(height, "val_bpb of every experiment and the best so far", parts)


def curves(history: History) -> str:
    """Smoothed training loss of the kept runs; later ones are darker, the best is the darkest."""
    drawn = [(record, curve) for record in history.kept if len(curve := history.curve(record)) > 1]
    if not drawn:
        return ""
    height = 340
    losses = [loss for _, curve in drawn for _, loss in curve]
    low, high = min(losses), max(losses)
    x, y = _scale(0, 1, _LEFT, _WIDTH - _RIGHT), _scale(high, low, _TOP, height - _BOTTOM)
    parts = [_axes(x, y, _ticks(0, 1), _ticks(low, high), height, "progress through the budget")]
    for index, (record, curve) in enumerate(drawn):
        best = record is history.best
        opacity = 1 if best else 0.25 + 0.5 * index / len(drawn)
        title = f"{record.number}: {one_line(record.hypothesis)} | ends at {curve[-1][1]:.3f}"
        kind = "best" if best else "curve"
        path = f'<path class="{kind}" opacity="{opacity:.2f}" d="{_path(x, y, curve)}"/>'
        parts.append(f"<g><title>{escape(title)}</title>{path}</g>")
    return _svg(height, "training loss of kept runs against progress", parts)


def _mark(status: str, edge: bool, x: float, y: float) -> str:
    if status in FAILURES:
        return f'<path class="mark crash" d="M{x - 4:.1f},{y - 4:.1f}l8,8m0,-8l-8,8"/>'
    if edge:
        return f'<path class="mark {status}" d="M{x - 4:.1f},{y + 4:.1f}l4,-8l4,8Z"/>'
    return f'<circle class="mark {status}" cx="{x:.1f}" cy="{y:.1f}" r="{4.5 if status == "keep" else 3.5}"/>'


def _scale(start: float, end: float, low: float, high: float) -> Scale:
    span = end - start or 1.0
    return lambda value: low + (value - start) / span * (high - low)


def _stairs(corners: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    points = [corners[0]]
    for (_, level), (number, value) in pairwise(corners):
        points += [(number, level), (number, value)]
    return points


def _path(x: Scale, y: Scale, points: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)


def _ticks(low: float, high: float, *, integers: bool = False) -> list[float]:
    """About six round numbers between `low` and `high`."""
    raw = max(high - low, 1e-9) / 6
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    step = max(1.0, round(step)) if integers else step
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def _axes(x: Scale, y: Scale, across: list[float], up: list[float], height: int, label: str) -> str:
    parts = []
    for value in up:
        at = f"{y(value):.1f}"
        parts.append(f'<path class="grid" d="M{_LEFT},{at}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{at}" dy="4" text-anchor="end">{value:.4g}</text>')
    base = height - _BOTTOM
    for value in across:
        words = f'x="{x(value):.1f}" y="{base + 16}" text-anchor="middle"'
        parts.append(f'<text class="tick" {words}>{value:g}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    return "".join([*parts, f'<text class="tick" x="{middle}" y="{height - 2}" text-anchor="middle">{label}</text>'])


def _svg(height: int, label: str, parts: list[str]) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
