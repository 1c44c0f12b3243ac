"""Writes what is needed to use a run's model elsewhere: weights, tokenizer, configuration."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_autoresearch.data.prepared import TOKENIZER

from .data import open_data
from .files import CHECKPOINT, CONFIG, SUMMARY
from .run import Run

_WEIGHTS = "model.safetensors"


def export(run: Run, folder: str | Path, **metadata: str) -> None:
    """Write model.safetensors, tokenizer.json and config.yaml to `folder`, which is made where it is missing.

    model.safetensors: the GPT's parameters by name, with `metadata` and val_bpb.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays: Any = mx.load(str(run.path / CHECKPOINT))
    weights = {k.removeprefix("model."): v for k, v in arrays.items() if k.startswith("model.")}
    summary: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        summary = json.loads((run.path / SUMMARY).read_text(encoding="utf-8"))
    metadata = {"format": "mlx", **metadata, "val_bpb": str(summary.get("val_bpb"))}
    mx.save_safetensors(str(folder / _WEIGHTS), weights, metadata)
    config = run.config()
    shutil.copyfile(open_data(config).path / TOKENIZER, folder / TOKENIZER)
    (folder / CONFIG).write_text(config.to_yaml(), encoding="utf-8")
