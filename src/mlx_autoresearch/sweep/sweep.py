"""A sweep from its file to its report: open the queue, work through it, write up what came out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .study import Queue
    from .view import View


_TABLE = "table.tsv"


@dataclass(frozen=True)
class Result:
    """A sweep's folder, its best val_bpb and the values that gave it; None where no point succeeded.

    failure: why the last point has none, in one line, where the sweep is over and no point has a result.
    """

    home: Path
    val_bpb: float | None
    values: dict[str, Any] | None
    failure: str | None = None


def open_sweep(file: str | Path, *, home: str | Path, storage: str | None = None) -> Queue:
    """The queue of a sweep's YAML file: a new one, or the one that is in the folder `home` already.

    storage: an Optuna URL that wins over the file's. Raises UserError for a wrong file, points that cannot be trained,
    data that is not prepared, and a storage that cannot be opened or holds another sweep.
    """
    from mlx_autoresearch.training.data import open_data

    from .spec import check_points, load_sweep
    from .study import Queue

    sweep = load_sweep(file)
    if storage is not None:
        sweep = sweep.model_copy(update={"storage": storage})
    open_data(check_points(sweep))
    return Queue(sweep, Path(home), Path(file).stem)


def work(queue: Queue, view: View) -> None:
    """Measure points until none waits in the queue. Raises KeyboardInterrupt when stopped; `work` again continues."""
    from mlx_autoresearch.machine.awake import awake

    from .worker import Worker

    with view, awake(view.say):
        try:
            Worker(queue, view).run()
        except KeyboardInterrupt:
            raise KeyboardInterrupt("stopped; run the same command to continue") from None


def write_up(queue: Queue) -> Result:
    """Write table.tsv, the plots and report.html from what the study holds now."""
    from optuna.trial import TrialState

    from mlx_autoresearch.ledger.files import LEDGER
    from mlx_autoresearch.machine.files import write_atomically
    from mlx_autoresearch.report.write import write

    from .plots import draw
    from .table import ranked, tsv

    write_atomically(queue.home / _TABLE, tsv(queue), durable=False)
    if (queue.home / LEDGER).is_file():
        write(queue.home, title=f"sweep/{queue.study.study_name}", plots=draw(queue))
    best = next((t for t in ranked(queue) if t.state is TrialState.COMPLETE), None)
    if best is None:
        return Result(queue.home, None, None, _failure(queue))
    return Result(queue.home, best.value, best.user_attrs["values"])


def _failure(queue: Queue) -> str | None:
    from optuna.trial import TrialState

    points = queue.points()
    if not points or not all(point.state.is_finished() for point in points):
        return None
    failed = [point.user_attrs.get("failure", {}) for point in points if point.state is TrialState.FAIL]
    last = failed[-1] if failed else {"kind": "stopped", "detail": "above the median"}
    return f"{last.get('kind', 'exception')}: {last.get('detail', 'given up')}"
