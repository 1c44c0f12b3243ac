"""A model whose code is not trusted, as the evaluator sees it: token ids go to another process, logits come back."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Self

import mlx.core as mx
import numpy as np

from mlx_autoresearch.errors import GPU_INTERRUPTED, GPUInterrupted, MetricRefused
from mlx_autoresearch.metric import bits
from mlx_autoresearch.sandbox.command import Running
from mlx_autoresearch.sandbox.confinement import Confinement

from .clock import INTERRUPTED

_POLL_SECONDS = 0.5  # between two looks whether the process still lives
_LONGEST_REPLY = 64  # bytes
_LAST_WORDS_SECONDS = 5.0  # for a process that answers no more: it says why as it ends
_PIECE = 1 << 20  # bytes that are written at once


class RemoteModel:
    """`LanguageModel` over a `child logits` process; its "features" are the logits themselves.

    Raises MetricRefused when the process ends or answers with something else than logits.
    """

    def __init__(
        self,
        run: Path,
        code: Path | None,
        vocab_size: int,
        *,
        exchange: Path,
        env: Mapping[str, str],
        confinement: Confinement | None,
        seconds: float,
        memory_mb: float | None,
        mark: str,
    ):
        """code: a snapshot of changed code, with a `confinement`; None for the installed code, which needs none.

        exchange: a folder for the files through which ids and logits pass; `confinement` lets it be written.
        """
        self._vocab_size = vocab_size
        # Held open: the process may put links in their place, which we must not follow.
        self._ids, self._logits = ((exchange / name).open("wb+", buffering=0) for name in ("ids", "logits"))
        requests, self._requests = os.pipe()
        self._replies, replies = os.pipe()
        argv = [sys.executable, "-P", "-m", "mlx_autoresearch.trials.child", "logits"]
        self._running = Running(
            [*argv, str(run.resolve()), str(code.resolve()) if code else "", str(requests), str(replies)],
            cwd=exchange,
            env=env,
            seconds=seconds,
            memory_mb=memory_mb,
            confinement=confinement,
            mark=mark,
            keep=[requests, replies],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._requests)
        self._running.stop()
        os.close(self._replies)
        self._ids.close()
        self._logits.close()

    def hidden(self, idx: mx.array) -> mx.array:
        """(B, T) ids -> (B, T, V) logits, float32."""
        return mx.array(self._ask(np.array(idx, dtype=np.int32)))

    def logits(self, hidden: mx.array) -> mx.array:
        """What `hidden` returned."""
        return hidden

    def _ask(self, ids: np.ndarray) -> np.ndarray:
        B, T = ids.shape
        V = self._vocab_size
        size = B * T * V * 4
        for file in (self._ids, self._logits):
            file.truncate(0)
            file.seek(0)
        ids.tofile(self._ids)
        _reserve(self._logits, size)
        request = [self._ids.name, B, T, V, max(1, bits.CHUNK_ELEMENTS // V), self._logits.name]
        try:
            os.write(self._requests, json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            raise self._dead() from None
        answer = b""
        while not answer.endswith(b"\n"):
            if not select.select([self._replies], [], [], _POLL_SECONDS)[0]:
                if not self._running.alive:
                    raise self._dead()
                continue
            more = os.read(self._replies, _LONGEST_REPLY)
            if not more or len(answer) > _LONGEST_REPLY:
                raise self._dead()
            answer += more
        if answer == f"{INTERRUPTED}\n".encode():
            raise GPUInterrupted(GPU_INTERRUPTED)
        as_asked = os.fstat(self._logits.fileno()).st_size == size
        logits = np.fromfile(self._logits, dtype=np.float32, count=B * T * V)
        if not as_asked or logits.size != B * T * V or not np.isfinite(logits).all():
            raise MetricRefused("the model's logits are not finite, or not as many as asked for")
        return logits.reshape(B, T, V)

    def _dead(self) -> MetricRefused:
        until = time.monotonic() + _LAST_WORDS_SECONDS
        while self._running.alive and time.monotonic() < until:
            time.sleep(0.02)
        outcome = self._running.stop()
        last = outcome.output.strip().split("\n")[-1] or f"exit code {outcome.returncode}"
        how = {"timeout": "took too long", "memory": "took too much memory"}.get(outcome.ended, f"ended: {last}")
        return MetricRefused(f"the process that computes logits {how}")


def _reserve(file: FileIO, size: int) -> None:
    """Make an empty file `size` bytes long, and have the disk take them. Raises OSError.

    Left a hole, a disk that is full would end the process that maps the file and writes to it, as if it were its fault.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    zeros = bytes(_PIECE)
    while (left := size - file.tell()) > 0:  # macOS
        file.write(zeros[:left])
