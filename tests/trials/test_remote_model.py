from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_autoresearch.errors import GPUInterrupted
from mlx_autoresearch.trials import remote_model
from mlx_autoresearch.trials.remote_model import RemoteModel

V = 50


class Impostor:
    """In the place of `Running`: answers the first request, and leaves a link for the second."""

    def __init__(self, argv: list[str], *, keep: list[int], **_: object):
        self.victim = Path(argv[-3])  # the code
        self.thread = threading.Thread(target=self.answer, args=keep)
        self.thread.start()

    def answer(self, requests: int, replies: int) -> None:
        with os.fdopen(requests) as lines, os.fdopen(replies, "w") as answers:
            for line in lines:
                ids, *_, logits = json.loads(line)
                for path in (Path(ids), Path(logits)):
                    path.unlink()
                    path.symlink_to(self.victim)
                print("done", file=answers, flush=True)

    def stop(self) -> None:
        self.thread.join()


def test_links_in_the_exchange_folder_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("dear")
    (tmp_path / "exchange").mkdir()
    monkeypatch.setattr(remote_model, "Running", Impostor)
    given: dict[str, Any] = {"env": {}, "confinement": None, "seconds": 9.0, "memory_mb": None, "mark": "test"}
    with RemoteModel(tmp_path, victim, V, exchange=tmp_path / "exchange", **given) as model:
        for _ in range(2):
            model.hidden(mx.zeros((1, 4), mx.int32))
            assert victim.read_text() == "dear"


@pytest.mark.parametrize("how", ["fallocate", "zeros"])
def test_a_full_disk_is_met_here_and_not_in_the_process_that_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A write to a hole of the mapped file used to end that process, and the model was rejected for it."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if how == "zeros":
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
        monkeypatch.setattr(remote_model, "bytes", full, raising=False)
    else:
        monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    (tmp_path / "exchange").mkdir()
    monkeypatch.setattr(remote_model, "Running", Impostor)
    given: dict[str, Any] = {"env": {}, "confinement": None, "seconds": 9.0, "memory_mb": None, "mark": "test"}
    with (
        RemoteModel(tmp_path, tmp_path, V, exchange=tmp_path / "exchange", **given) as model,
        pytest.raises(OSError, match="No space left"),
    ):
        model.hidden(mx.zeros((1, 4), mx.int32))


@pytest.mark.parametrize("size", [1, 4 * V, (1 << 20) + 3])
@pytest.mark.parametrize("system", ["this", "macOS"])
def test_what_is_reserved_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, system: str) -> None:
    if system == "macOS":
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    with (tmp_path / "file").open("wb+", buffering=0) as file:
        remote_model._reserve(file, size)
        found = os.fstat(file.fileno())
    assert found.st_size == size
    assert system == "macOS" or found.st_blocks * 512 >= size  # a file system may pack written zeros


def test_a_gpu_that_macos_stopped_is_no_verdict_on_the_model(tmp_path: Path) -> None:
    """It used to be: the process that computes logits ended, so the model was rejected."""
    model = RemoteModel.__new__(RemoteModel)
    model._vocab_size = V
    model._ids, model._logits = ((tmp_path / name).open("wb+", buffering=0) for name in ("ids", "logits"))
    requests, model._requests = os.pipe()
    model._replies, replies = os.pipe()
    os.write(replies, b"gpu\n")
    try:
        with pytest.raises(GPUInterrupted):
            model._ask(np.zeros((1, 4), np.int32))
    finally:
        model._ids.close()
        model._logits.close()
        for descriptor in (requests, model._requests, model._replies, replies):
            os.close(descriptor)
