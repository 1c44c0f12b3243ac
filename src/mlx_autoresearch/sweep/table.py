"""A sweep's points, best first, for a terminal and as tab-separated text."""

from __future__ import annotations

import math
import statistics
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from .spec import short, short_names
from .study import Queue

_ROWS = 15


def ranked(queue: Queue) -> list[FrozenTrial]:
    """The finished points, the best first, those without a result last."""
    finished = [t for t in queue.points() if t.state.is_finished()]
    return sorted(finished, key=lambda t: (_value(t), t.number))


def tsv(queue: Queue) -> str:
    """number, status, val_bpb, its standard deviation over seeds, seconds, then the values; one line per point."""
    keys = list(queue.axes)
    lines = ["\t".join(["number", "status", "val_bpb", "deviation", "seconds", *keys])]
    lines += ["\t".join(_cells(point, keys)) for point in ranked(queue)]
    return "\n".join(lines) + "\n"


def print_table(queue: Queue) -> None:
    """The best points on standard output."""
    from rich.console import Console
    from rich.table import Table

    keys = list(queue.axes)
    points = ranked(queue)
    table = Table(title=f"{queue.study.study_name}: {len(points)} of {len(queue.points())} points, best first")
    for heading in ("#", "val_bpb", "±"):
        table.add_column(heading, justify="right")
    for name in short_names(keys).values():
        table.add_column(name, justify="right", overflow="fold")
    for point in points[:_ROWS]:
        number, status, value, deviation, _, *values = _cells(point, keys)
        table.add_row(number, value or status, deviation, *values)
    Console().print(table)


def _cells(point: FrozenTrial, keys: list[str]) -> list[str]:
    values: dict[str, Any] = point.user_attrs.get("values", {})
    runs = [run["val_bpb"] for run in point.user_attrs.get("runs", [])]
    complete = point.state is TrialState.COMPLETE
    return [
        str(point.number),
        {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}.get(point.state, "failed"),
        f"{point.value:.6f}" if complete else "",
        f"{statistics.stdev(runs):.4f}" if complete and len(runs) > 1 else "",
        f"{point.duration.total_seconds():.0f}" if point.duration else "",
        *(short(values[key]) if key in values else "" for key in keys),
    ]


def _value(point: FrozenTrial) -> float:
    return point.value if point.state is TrialState.COMPLETE and point.value is not None else math.inf
