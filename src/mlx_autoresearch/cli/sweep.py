"""`mlx-autoresearch sweep`: measures many points of a space of settings, and shows the best."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sweep(
    file: Annotated[str, typer.Argument(metavar="SWEEP.yaml", help="which settings to vary, and how")],
    runs: Annotated[str, typer.Option(help="folder that the sweep's folder is made in")] = "runs/sweeps",
    storage: Annotated[str | None, typer.Option(help="Optuna storage URL, in place of a journal file")] = None,
) -> None:
    """Try a grid, random points or what TPE proposes.

    Run the same command again to continue a stopped sweep, or to share the work of a running one.
    """
    from mlx_autoresearch.machine.blas import require_mlx

    require_mlx()
    from mlx_autoresearch.errors import RunFailed
    from mlx_autoresearch.report.write import PAGE
    from mlx_autoresearch.sweep.spec import describe
    from mlx_autoresearch.sweep.sweep import open_sweep, work, write_up
    from mlx_autoresearch.sweep.table import print_table
    from mlx_autoresearch.sweep.view import make_view

    queue = open_sweep(file, home=Path(runs) / Path(file).stem, storage=storage)
    typer.echo(f"sweep folder: {queue.home}")
    try:
        work(queue, make_view())
    finally:
        result = write_up(queue)
    print_table(queue)
    if result.val_bpb is not None and result.values is not None:
        typer.echo(f"best_val_bpb: {result.val_bpb:.6f}")
        typer.echo(f"best: {describe(result.values)}")
    typer.echo(f"report: {result.home / PAGE}")
    if result.failure is not None:
        raise RunFailed(f"no point of the sweep has a result; the last one: {result.failure}")
