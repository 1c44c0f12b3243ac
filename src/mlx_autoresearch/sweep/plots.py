"""A sweep's plots: val_bpb against each setting, every point as a line through its values, the settings' importance."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from matplotlib import colormaps
from matplotlib.colors import Normalize
from optuna.trial import TrialState

from mlx_autoresearch.report.figures import INK, KEEP, PAPER, QUIET, figure
from mlx_autoresearch.report.page import Plot

from .spec import Axis, Choices, Range, short, short_names
from .study import Queue

_COLOURS = "viridis"
_ENOUGH = 4  # points with a result before importance is estimated


@dataclass(frozen=True)
class Point:
    """A point that was measured: its number in the queue, its values by setting, its mean val_bpb over seeds."""

    number: int
    values: dict[str, Any]
    val_bpb: float


def draw(queue: Queue) -> list[Plot]:
    """Write slices.png, parallel.png and importance.png in the sweep's folder, as far as its results allow."""
    done = [t for t in queue.points() if t.state is TrialState.COMPLETE]
    points = [Point(t.number, t.user_attrs["values"], t.value) for t in done if t.value is not None]
    axes = queue.axes
    if len(points) < 2:
        return []
    plots = [
        _slices(points, axes, queue.home / "slices.png"),
        _parallel(points, axes, queue.home / "parallel.png"),
    ]
    if len(points) >= _ENOUGH and len(axes) > 1:
        plots.append(_importance(queue.study, queue.home / "importance.png"))
    return plots


def _slices(points: Sequence[Point], axes: dict[str, Axis], path: Path) -> Plot:
    columns = min(3, len(axes))
    rows = math.ceil(len(axes) / columns)
    names = short_names(axes)
    with figure(3.7 * columns + 0.3, 3.1 * rows, path) as fig:
        grid = fig.subplots(rows, columns, sharey=True, squeeze=False)
        numbers = [p.number for p in points]
        values = [p.val_bpb for p in points]
        best = values.index(min(values))
        for axis_plot, (key, axis) in zip(grid.flat, axes.items(), strict=False):
            places, ticks = _places(axis, [p.values[key] for p in points])
            axis_plot.scatter(
                places, values, c=numbers, cmap="Greys", vmin=-max(numbers), edgecolor=QUIET, linewidth=0.4
            )
            axis_plot.scatter([places[best]], [values[best]], color=KEEP, s=70, edgecolor=PAPER, zorder=3)
            axis_plot.set_xlabel(names[key])
            _set_ticks(axis_plot, axis, ticks)
        for unused in list(grid.flat)[len(axes) :]:
            unused.set_visible(False)
        for row in grid:
            row[0].set_ylabel("val_bpb")
    return Plot("Slices", "val_bpb against each setting alone; later points are darker, the best is green.", path)


def _parallel(points: Sequence[Point], axes: dict[str, Axis], path: Path) -> Plot:
    values = np.array([p.val_bpb for p in points])
    worst = float(np.quantile(values, 0.9)) if len(values) > 9 else float(values.max())
    norm = Normalize(values.min(), max(worst, values.min() + 1e-9))
    names = [*short_names(axes).values(), "val_bpb"]
    with figure(max(6.5, 1.9 * len(names)), 4.6, path) as fig:
        plot = fig.add_subplot()
        columns = []
        for x, (key, axis) in enumerate(axes.items()):
            places, ticks = _places(axis, [p.values[key] for p in points])
            low, high = _bounds(axis)
            columns.append([(p - low) / (high - low) for p in places])
            for at, text in ticks or _round_ticks(axis, low, high):
                y = (at - low) / (high - low)
                plot.text(x - 0.03, y, text, ha="right", va="center", fontsize=8.5)
        top = max(worst, values.min() + 1e-9)
        columns.append([min((v - values.min()) / (top - values.min()), 1.05) for v in values])
        for share in (0.0, 0.5, 1.0):
            text = f"{values.min() + share * (top - values.min()):.3f}"
            plot.text(len(axes) + 0.03, share, text, ha="left", va="center", fontsize=8.5)
        for index in np.argsort(-values):
            best = values[index] == values.min()
            line = [column[index] for column in columns]
            colour = KEEP if best else colormaps[_COLOURS](norm(min(values[index], top)))
            plot.plot(line, color=colour, linewidth=2.4 if best else 1.0, alpha=1.0 if best else 0.6)
        for x in range(len(names)):
            plot.axvline(x, color=QUIET, linewidth=0.8)
        plot.set_xticks(range(len(names)), names)
        plot.tick_params(length=0)
        plot.set_yticks([])
        plot.grid(visible=False)
        plot.set_xlim(-0.5, len(names) - 0.6)
        plot.spines[:].set_visible(False)
    explanation = (
        "Each line is a point, from its values to its val_bpb. The best is green; the worst 10% are off the scale."
    )
    return Plot("Parallel coordinates", explanation, path)


def _importance(study: optuna.Study, path: Path) -> Plot:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of few points; the page says so, too
        shares = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
        )
    short_name = short_names(shares)
    names, values = [short_name[key] for key in shares][::-1], list(shares.values())[::-1]
    with figure(7, 0.7 + 0.42 * len(names), path) as fig:
        plot = fig.add_subplot()
        bars = plot.barh(names, values, color=KEEP, height=0.6)
        plot.bar_label(bars, [f"{100 * v:.0f}%" for v in values], padding=4, color=INK, fontsize=9)
        plot.set_xlim(0, max(values) * 1.12 or 1)
        plot.set_xticks([])
        plot.grid(visible=False)
        plot.spines["bottom"].set_visible(False)
    explanation = (
        "How well each setting tells the best quarter of the points from the rest (PED-ANOVA); with few points, a hint."
    )
    return Plot("Importance", explanation, path)


def _places(axis: Axis, values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Positions of values on an axis; and its ticks where values are chosen from a list, in the order of the file."""
    if isinstance(axis, Range):
        return [math.log10(v) if axis.log else v for v in values], []
    places = [float(axis.values.index(v)) for v in values]
    return places, [(float(i), short(v)) for i, v in enumerate(axis.values)]


def _bounds(axis: Axis) -> tuple[float, float]:
    if isinstance(axis, Choices):
        return 0.0, max(len(axis.values) - 1.0, 1.0)
    return (math.log10(axis.low), math.log10(axis.high)) if axis.log else (axis.low, axis.high)


def _round_ticks(axis: Axis, low: float, high: float) -> list[tuple[float, str]]:
    log = isinstance(axis, Range) and axis.log
    if isinstance(axis, Range) and axis.integers and not log:
        stride = max(1, math.ceil((high - low) / 6))
        return [(p, str(p)) for p in range(int(low), int(high) + 1, stride)]
    places = [low + share * (high - low) for share in (0, 0.25, 0.5, 0.75, 1)]
    return [(p, f"{10**p if log else p:.3g}") for p in places]


def _set_ticks(plot: Any, axis: Axis, ticks: list[tuple[float, str]]) -> None:
    if isinstance(axis, Choices):
        plot.set_xlim(-0.5, len(axis.values) - 0.5)
    elif axis.log or axis.integers:
        ticks = _round_ticks(axis, *_bounds(axis))
    if ticks:
        longest = max(len(text) for _, text in ticks)
        plot.set_xticks([at for at, _ in ticks], [text for _, text in ticks], rotation=30 if longest > 6 else 0)
