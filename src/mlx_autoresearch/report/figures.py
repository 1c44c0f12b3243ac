"""Draws progress.png: every experiment, the best so far as a staircase, and what was kept."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlx_autoresearch.ledger.ledger import Record
from mlx_autoresearch.machine.files import replacing
from mlx_autoresearch.plain_text import one_line

from .history import FAILURES, STATUS_NAMES, History

INK, QUIET, GRID, PAPER = "#1f2933", "#8a94a0", "#e6e9ed", "#ffffff"
KEEP, DISCARD, CRASH, BAND = "#1a7f4b", "#b8c0c9", "#d64545", "#1a7f4b"
STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "text.color": INK,
    "text.parse_math": False,  # a hypothesis may hold dollar signs
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}
_LABEL_SIZE, _LINE, _LABEL_CHARS, _MOST_LABELS = 8.2, 12.0, 30, 40  # points, points, characters, labels


@contextmanager
def figure(width: float, height: float, path: Path) -> Iterator[Figure]:
    """A figure of width x height inches in the style of all plots, written to `path` as PNG at the end."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # A hypothesis may be in any script; a box for a letter that the font lacks is good enough.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        fig = Figure((width, height), layout="constrained", facecolor=PAPER)
        FigureCanvasAgg(fig)
        yield fig
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, durable=False) as new:
            fig.savefig(new, dpi=160, metadata={"Software": None})  # the same ledger gives the same bytes


def progress_png(history: History, path: Path, title: str) -> None:
    """Draw all experiments of a search or a sweep."""
    with figure(11, 7.6, path) as fig:
        axes = fig.add_subplot()
        axes.set_title(one_line(title, 60), loc="left", fontsize=12.5, fontweight="bold")
        axes.set_title(_subtitle(history), loc="right", fontsize=9.5, color=QUIET)
        axes.set_xlabel("experiment")
        axes.set_ylabel("validation bits per byte (lower is better)")
        axes.grid(axis="x", visible=False)
        last = max((r.number for r in history.decided), default=0)
        if not history.values:
            axes.text(0.5, 0.5, "nothing measured yet", transform=axes.transAxes, ha="center", color=QUIET)
            return
        low, high = history.scale
        low -= 2 * (history.sigma or 0.0)
        _draw(axes, history, last, high)
        axes.set_xlim(-0.02 * max(last, 8), last + 0.03 * max(last, 8))
        axes.set_ylim(low - 0.05 * (high - low), high + 0.04 * (high - low))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        fig.legend(loc="outside lower center", ncols=6, fontsize=9, handletextpad=0.3, columnspacing=1.6)
        fig.canvas.draw()  # fixes the layout, so that positions can be converted to points
        _label(axes, history, low, high)
        axes.set_xticks([t for t in axes.get_xticks() if 0 <= t <= last])
        axes.set_yticks([t for t in axes.get_yticks() if low - 0.1 * (high - low) <= t <= axes.get_ylim()[1]])


def _draw(axes: Any, history: History, last: int, high: float) -> None:
    steps = history.steps
    if steps:
        x = [s.number for s in steps] + [max(last, steps[-1].number)]
        y = [s.val_bpb for s in steps] + [steps[-1].val_bpb]
        if history.sigma:
            reach = 2 * history.sigma
            label = f"noise of one run (± {reach:.3f})"
            lower, upper = [v - reach for v in y], [v + reach for v in y]
            axes.fill_between(x, lower, upper, step="post", color=BAND, alpha=0.12, linewidth=0, label=label)
        axes.step(x, y, where="post", color=KEEP, linewidth=1.6, zorder=3, label="best so far")
    beaten = [r for r in history.decided if r.status != "keep"]
    discarded = [r for r in beaten if r.status not in FAILURES]
    inside = [(r.number, r.val_bpb) for r in discarded if r.val_bpb is not None and r.val_bpb <= high]
    without = [(r.number, high) for r in beaten if r.status in FAILURES]
    outside = [(r.number, high) for r in discarded if r.val_bpb is None or r.val_bpb > high]
    kept = [(r.number, r.val_bpb) for r in history.kept]
    label = f"kept ({history.counts['keep']})"
    for points, style in (
        (inside, {"marker": "o", "color": DISCARD, "markersize": 4.5, "label": f"discarded ({len(inside)})"}),
        (
            outside,
            {
                "marker": "^",
                "color": DISCARD,
                "markersize": 5,
                "label": f"above {high:.3f} or stopped ({len(outside)})",
            },
        ),
        (without, {"marker": "x", "color": CRASH, "markersize": 6, "label": f"no result ({len(without)})"}),
        (kept, {"marker": "o", "color": KEEP, "markersize": 6, "markeredgecolor": PAPER, "zorder": 4, "label": label}),
    ):
        if points:
            axes.plot(*zip(*points, strict=True), linestyle="none", **style)


def _label(axes: Any, history: History, low: float, high: float) -> None:
    """Label what was kept, below the staircase; extends the axis downwards until every label has room.

    A label ends at its point's column and hangs on a thin line, below the line's end of every label that it reaches
    under. So none overlaps another, and no line crosses a label.
    """
    kept = history.kept[1:] if history.baseline else history.kept
    by_gain = sorted(kept, key=lambda r: -history.gains.get(r.number, 0.0))
    labels = {r.number: f"{r.number}  {one_line(r.hypothesis, _LABEL_CHARS)}" for r in kept}
    points = axes.figure.dpi / 72
    widths = {r.number: _width(axes, labels[r.number]) / points for r in kept}
    bottom, top = axes.get_ylim()
    labelled, ends = [], []
    for count in range(min(_MOST_LABELS, len(kept)), -1, -1):  # fewer labels, until there is room
        labelled = [r for r in kept if r in by_gain[:count]]
        _widen(axes, labelled, widths)
        for deeper in range(32):
            axes.set_ylim(bottom - 0.06 * deeper * (high - low), top)
            floor = axes.transData.transform((0, axes.get_ylim()[0]))[1] / points + _LINE
            ends = _hang(axes, history, labelled, widths, points)
            if min(ends, default=floor) >= floor:
                break
        else:
            continue
        break
    for record, end in zip(labelled, ends, strict=True):
        text = labels[record.number]
        value = axes.transData.inverted().transform((0, end * points))[1]
        line, words = {"color": QUIET, "linewidth": 0.5, "zorder": 2}, {"ha": "right", "va": "center"}
        axes.plot([record.number] * 2, [record.val_bpb, value], **line)
        at = (record.number, value)
        axes.annotate(text, at, (-2, 0), textcoords="offset points", fontsize=_LABEL_SIZE, in_layout=False, **words)


def _widen(axes: Any, kept: list[Record], widths: dict[int, float]) -> None:
    """Begin the axis as far to the left as the labels of the first experiments reach."""
    left, right = axes.get_xlim()
    whole = axes.get_window_extent().width * 72 / axes.figure.dpi
    for record in kept:
        share = (widths[record.number] + 10) / whole  # of the axis, that must lie to the left of the record
        left = min(left, (record.number - share * right) / (1 - share))
    axes.set_xlim(left, right)


def _hang(axes: Any, history: History, kept: list[Record], widths: dict[int, float], points: float) -> list[float]:
    """Heights (points from the figure's bottom) at which the labels of `kept`, from left to right, hang."""
    stairs = [(s.number, s.val_bpb) for s in history.steps]
    placed: list[tuple[float, float]] = []
    for record in kept:
        x, y = axes.transData.transform((record.number, record.val_bpb)) / points
        under = [axes.transData.transform(s)[1] / points for s in stairs if s[0] <= record.number][-1:]
        start = x - widths[record.number] - 6
        over = [end for at, end in placed if at >= start]
        placed.append((x, min([y - 1.2 * _LINE, *(u - 1.2 * _LINE for u in under), *(o - _LINE for o in over)])))
    return [end for _, end in placed]


def _width(axes: Any, text: str) -> float:
    probe = axes.text(0, 0, text, fontsize=_LABEL_SIZE)
    width = probe.get_window_extent().width
    probe.remove()
    return width


def _subtitle(history: History) -> str:
    counts = history.counts
    parts = [f"{sum(counts.values())} experiments"]
    parts += [f"{counts[s]} {name}" for s, name in STATUS_NAMES.items() if counts[s]]
    if (gained := history.improvement) is not None and len(history.steps) > 1:
        parts.append(f"{gained.start:.3f} → {gained.best:.3f} ({gained.change:+.1f}%)")
    return "   ".join(parts)
