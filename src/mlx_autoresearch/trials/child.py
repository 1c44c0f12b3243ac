"""The untrusted side of a trial: trains in one process, turns token ids into logits in another.

    python -m mlx_autoresearch.trials.child train FOLDER CONFIG DATA CODE SCORE EVENTS
    python -m mlx_autoresearch.trials.child logits RUN CODE REQUESTS REPLIES

CODE is a snapshot of the editable files, or "" for the installed ones. DATA is the folder of prepared data for such a
snapshot, whose process can read the part to train on alone, or ""; EVENTS, REQUESTS and REPLIES are descriptors.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mlx_autoresearch.training.progress import Reporter

from . import overlay
from .clock import INTERRUPTED

TROUBLE = 3  # exit code of a failure that is classified: the last event says how


class _Events(Reporter):
    """Tells the parent, which keeps its own clock, how far the run is; trials/clock.py lists the events."""

    def __init__(self, descriptor: int):
        super().__init__(sys.stdout)
        self._descriptor = descriptor

    def send(self, **values: Any) -> None:
        os.write(self._descriptor, json.dumps(values).encode() + b"\n")

    def start(self, description: dict[str, Any]) -> None:
        self.send(event="start")

    def step(self, record: dict[str, Any], remaining: float) -> None:
        self.send(event="step", step=record["step"], loss=record["smooth_loss"], remaining=remaining)

    def ended(self, weights: str) -> None:
        self.send(event="ended", weights=weights)

    def trained(self) -> None:
        self.send(event="trained")

    def finish(self, summary: dict[str, Any]) -> None:
        self.send(event="finish")


def train(folder: str, config: str, data_folder: str, code: str, score: str, events: str) -> int:
    """Train CONFIG (JSON) into the new run folder FOLDER. Exit code 0, or TROUBLE after a last event."""
    from mlx_autoresearch.errors import GPUInterrupted, LossExploded, MetricRefused, OutOfMemory, UserError, from_mlx

    started = time.perf_counter()
    reporter = _Events(int(events))
    try:
        if code:
            overlay.install(Path(code))
        from mlx_autoresearch.config.load import validate_config
        from mlx_autoresearch.data.prepared import PreparedData
        from mlx_autoresearch.data.shards import Manifest
        from mlx_autoresearch.machine import compiled
        from mlx_autoresearch.training import trainer
        from mlx_autoresearch.training.clock import Clock
        from mlx_autoresearch.training.data import data_info, open_data
        from mlx_autoresearch.training.run import Run
        from mlx_autoresearch.training.setup import setup

        settings = validate_config(json.loads(config), "the trial")
        if code:
            data = PreparedData(Path(data_folder), Manifest.load(Path(data_folder)))
            data.verify_training()
        else:
            data = open_data(settings)
        with nullcontext() if code else compiled.kept():
            training = setup(settings, data)
            run = Run.create_at(Path(folder), settings, {"data": data_info(data)})
            trainer.complete(training, Clock(settings.train, started), run, data, reporter, score=score == "1")
    except LossExploded as error:
        reporter.send(event="trouble", kind="nan", detail=str(error))
    except MetricRefused as error:
        reporter.send(event="trouble", kind="metric", detail=str(error))
    except GPUInterrupted as error:
        reporter.send(event="trouble", kind=INTERRUPTED, detail=str(error))
    except OutOfMemory as error:
        reporter.send(event="trouble", kind="out of memory", detail=str(error))
    except UserError as error:
        reporter.send(event="trouble", kind="setup", detail=str(error))
    except (MemoryError, RuntimeError) as error:
        kinds = {OutOfMemory: "out of memory", GPUInterrupted: INTERRUPTED}
        kind = kinds.get(type(from_mlx(error)))  # type: ignore[arg-type]
        if kind is None:
            raise
        reporter.send(event="trouble", kind=kind, detail=str(error))
    else:
        return 0
    return TROUBLE


def logits(run: str, code: str, requests: str, replies: str) -> int:
    """Serve logits of RUN's checkpoint until REQUESTS ends.

    A request is one line of JSON, [ids file, B, T, V, positions at a time, logits file]: (B, T) int32 in, (B, T, V)
    float32 out, through files mapped into memory. The reply is the line "done", or "gpu" where macOS stopped the GPU.
    """
    if code:
        overlay.install(Path(code))
    import mlx.core as mx
    import numpy as np

    from mlx_autoresearch.errors import GPUInterrupted, from_mlx
    from mlx_autoresearch.training.run import Run
    from mlx_autoresearch.training.scoring import trained_model

    model = trained_model(Run.open(run))

    def computed(ids: mx.array, B: int, T: int, V: int, chunk: int, out_file: str) -> bool:
        """Write the logits; whether they had the right shape."""
        hidden = model.hidden(ids)
        hidden = hidden.reshape(B * T, -1)
        with open(out_file, "r+b") as file, mmap.mmap(file.fileno(), B * T * V * 4) as memory:
            out = np.frombuffer(memory, dtype=np.float32).reshape(B * T, V)
            for i in range(0, B * T, chunk):
                part = model.logits(hidden[i : i + chunk]).astype(mx.float32)
                if part.shape != out[i : i + chunk].shape:
                    print(f"logits must have shape {out[i : i + chunk].shape}, got {part.shape}")
                    return False
                out[i : i + chunk] = np.array(part)
            del out
        return True

    with os.fdopen(int(requests)) as lines, os.fdopen(int(replies), "w") as answers:
        for line in lines:
            ids_file, B, T, V, chunk, out_file = json.loads(line)
            ids = np.fromfile(ids_file, dtype=np.int32).reshape(B, T)
            try:
                if not computed(mx.array(ids), B, T, V, chunk, out_file):
                    return TROUBLE
            except RuntimeError as error:
                if not isinstance(from_mlx(error), GPUInterrupted):
                    raise
                print(INTERRUPTED, file=answers, flush=True)
                return TROUBLE
            print("done", file=answers, flush=True)
    return 0


if __name__ == "__main__":
    command = {"train": train, "logits": logits}[sys.argv[1]]
    sys.exit(command(*sys.argv[2:]))
