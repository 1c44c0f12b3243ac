"""`mlx-autoresearch bench`: how fast this machine trains, as a table and as a file to publish."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Annotated

import typer

from mlx_autoresearch.errors import UserError

from .signals import uninterrupted
from .train import Settings


def bench(
    settings: Settings = None,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="where the figures go; default: a new file here")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="counted steps; default: 15 seconds of each configuration")] = None,
) -> None:
    """Measure how fast this machine trains: step time, memory, kernels.

    Takes one or two minutes once all is compiled. Without a file: configs/default.yaml and a smaller batch of
    configs/reference.yaml. Random tokens; nothing need be prepared, and nothing is sent anywhere.
    """
    from mlx_autoresearch.config.load import load_config, split_settings

    path, overrides = split_settings(settings or [])
    own = load_config(path, overrides) if path is not None else None
    load_config(None, overrides)  # before MLX is loaded, so that wrong settings end at once
    if steps is not None and steps < 1:
        raise UserError(f"--steps: expected at least 1, got {steps}")
    file = Path(json_file or "")
    _check_writable(file if json_file else file / "new.json")
    with uninterrupted():
        from mlx_autoresearch.machine.blas import require_mlx

        require_mlx()
        from mlx_autoresearch.machine.files import write_atomically
        from mlx_autoresearch.machine.specification import specification
        from mlx_autoresearch.training.bench import bench as measure
        from mlx_autoresearch.training.bench_report import as_json, text

    found, machine = measure(own, overrides, steps=steps), specification()
    typer.echo(text(found, machine))
    if json_file is None:
        chip = re.sub(r"\((?:r|tm)\)|[^a-z0-9]", " ", machine["chip"].lower())
        file = Path(f"mlx-autoresearch-{'-'.join(chip.split())}-{time.strftime('%Y%m%d-%H%M%S')}.json")
    write_atomically(file, json.dumps(as_json(found, machine), indent=2, allow_nan=False) + "\n")
    typer.echo(f"\nfigures: {file}")


def _check_writable(file: Path) -> None:
    """Before minutes are spent. Raises UserError."""
    if file.is_dir():
        raise UserError(f"--json: {file} is a folder; name a file in it")
    if not file.parent.is_dir():
        raise UserError(f"--json: there is no folder {file.parent}; make it or name another file")
    if not os.access(file.parent, os.W_OK):
        raise UserError(f"--json: {file.parent} cannot be written; name a file elsewhere")
