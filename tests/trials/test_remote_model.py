from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_autoresearch.errors import GPUInterrupted, RunFailed
from mlx_autoresearch.trials import remote_model
from mlx_autoresearch.trials.remote_model import RemoteModel, check_remote_causality

V, T = 50, 64
TABLE = np.random.default_rng(0).standard_normal((V, V)).astype(np.float32) * 3


class Local(RemoteModel):
    """Computes logits here, by a function of ids (B, T)."""

    def __init__(self, logits: Callable[[np.ndarray], np.ndarray]):
        self._vocab_size, self._random = V, random.SystemRandom()
        self.probes, self.repeats = [], []
        self._ask = logits


def bigram(ids: np.ndarray) -> np.ndarray:
    return TABLE[ids]


def peek(distance: int, nats: float) -> Callable[[np.ndarray], np.ndarray]:
    """A bigram model that raises the logit of the token `distance` ahead."""

    def logits(ids: np.ndarray) -> np.ndarray:
        out = bigram(ids).copy()
        rows, columns = np.indices(ids[:, distance:].shape)
        out[rows, columns, ids[:, distance:]] += nats
        return out

    return logits


def examine(first: Callable[[np.ndarray], np.ndarray], second: Callable[[np.ndarray], np.ndarray]) -> None:
    rng = np.random.default_rng(1)
    model = Local(first)
    for _ in range(16):
        model.hidden(mx.array(rng.integers(0, V, (8, T))))
    check_remote_causality(model, Local(second))


def test_a_causal_model_passes() -> None:
    examine(bigram, bigram)


@pytest.mark.parametrize("distance", [1, 2, 10])
@pytest.mark.parametrize("nats", [0.05, 5.0])
def test_a_peek_at_a_later_token_is_seen_however_small(distance: int, nats: float) -> None:
    with pytest.raises(RunFailed, match="looks ahead"):
        examine(peek(distance, nats), peek(distance, nats))


def test_noise_does_not_hide_a_peek() -> None:
    """Another bias in every process widens what one position may differ by, but not what all do on average."""

    def noisy(seed: int) -> Callable[[np.ndarray], np.ndarray]:
        bias = np.random.default_rng(seed).uniform(-0.01, 0.01, (T, V)).astype(np.float32)
        return lambda ids: (peek(1, 0.06)(ids) if len(ids) > 1 else bigram(ids)) + bias

    def honest(seed: int) -> Callable[[np.ndarray], np.ndarray]:
        bias = np.random.default_rng(seed).uniform(-0.01, 0.01, (T, V)).astype(np.float32)
        return lambda ids: bigram(ids) + bias

    examine(honest(1), honest(2))
    with pytest.raises(RunFailed, match="later tokens gain it"):
        examine(noisy(1), noisy(2))


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
    given: dict[str, Any] = {"env": {}, "seconds": 9.0, "memory_mb": None, "mark": "test"}
    with RemoteModel(tmp_path, victim, V, exchange=tmp_path / "exchange", **given) as model:
        for _ in range(2):
            model.hidden(mx.zeros((1, 4), mx.int32))
            assert victim.read_text() == "dear"


def test_what_is_remembered_from_scored_rows_does_not_help() -> None:
    seen: dict[bytes, np.ndarray] = {}

    def cheat(ids: np.ndarray) -> np.ndarray:
        """Peeks at rows that it has not seen, and repeats itself where a row begins like one it has."""
        out = peek(1, 5.0)(ids)
        for row, logits in zip(ids, out, strict=True):
            logits[: T // 4] = seen.setdefault(row[: T // 4].tobytes(), logits[: T // 4].copy())
        return out

    def fresh(ids: np.ndarray) -> np.ndarray:
        return peek(1, 5.0)(ids)

    with pytest.raises(RunFailed, match="looks ahead"):
        examine(cheat, fresh)


def test_logits_that_are_not_a_function_of_the_tokens_are_rejected() -> None:
    rng = np.random.default_rng(2)

    def noisy(ids: np.ndarray) -> np.ndarray:
        return bigram(ids) + rng.normal(0, 0.3, (*ids.shape, V)).astype(np.float32)

    with pytest.raises(RunFailed, match=r"same tokens|looks ahead"):
        examine(noisy, noisy)


def test_rounding_differences_between_processes_are_allowed() -> None:
    examine(bigram, lambda ids: bigram(ids) * np.float32(1 + 1e-6))


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
