"""A model whose code is not trusted, as the evaluator sees it: token ids go to another process, logits come back."""

from __future__ import annotations

import json
import os
import random
import select
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import mlx.core as mx
import numpy as np

from .. import evaluate
from ..errors import RunFailed
from .sandbox import Running

_COMPARED = 32  # positions before an altered token whose logits are compared
_NOISE = 0.05  # nats; what the same row may differ by between two processes
_TOLERANCE = 0.01  # nats


@dataclass(frozen=True)
class Probe:
    """A row (T,) that was scored, a position in it, and the log-probabilities of the positions just before."""

    row: np.ndarray
    position: int
    logprobs: np.ndarray


class RemoteModel:
    """`LanguageModel` over a `child logits` process; its "features" are the logits themselves.

    probes, repeats: rows chosen at random among those scored, for `check_remote_causality`. Raises RunFailed when the
    process ends or answers with something else than logits.
    """

    def __init__(
        self,
        run: Path,
        code: Path,
        vocab_size: int,
        *,
        exchange: Path,
        env: Mapping[str, str],
        seconds: float,
        memory_mb: float | None,
        mark: str,
    ):
        """exchange: a folder for the files through which ids and logits pass; the one place the process may write."""
        self._vocab_size = vocab_size
        self._ids, self._logits = exchange / "ids", exchange / "logits"
        self._random = random.SystemRandom()  # not to be foreseen
        self.probes: list[Probe] = []
        self.repeats: list[Probe] = []
        requests, self._requests = os.pipe()
        self._replies, replies = os.pipe()
        argv = [sys.executable, "-P", "-m", "mlx_autoresearch.research.child", "logits"]
        self._running = Running(
            [*argv, str(run.resolve()), str(code.resolve()), str(requests), str(replies)],
            cwd=exchange,
            env=env,
            seconds=seconds,
            memory_mb=memory_mb,
            writable=[exchange],
            mark=mark,
            keep=[requests, replies],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._requests)
        self._running.stop()
        os.close(self._replies)

    def hidden(self, idx: mx.array) -> mx.array:
        """(B, T) ids -> (B, T, V) logits, float32."""
        ids = np.array(idx, dtype=np.int32)
        logits = self._ask(ids)
        B, T = ids.shape
        if B > 1 and T > 1:
            for kept, b in zip((self.probes, self.repeats), self._random.sample(range(B), 2), strict=True):
                p = self._random.randrange(1, T)
                kept.append(Probe(ids[b], p, _logprobs(logits[b, max(0, p - _COMPARED) : p])))
        return mx.array(logits)

    def logits(self, hidden: mx.array) -> mx.array:
        """What `hidden` returned."""
        return hidden

    def _ask(self, ids: np.ndarray) -> np.ndarray:
        B, T = ids.shape
        V = self._vocab_size
        ids.tofile(self._ids)
        with self._logits.open("wb") as file:
            file.truncate(B * T * V * 4)
        request = [str(self._ids), B, T, V, max(1, evaluate._CHUNK_ELEMENTS // V), str(self._logits)]
        try:
            os.write(self._requests, json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            raise self._dead() from None
        answer = b""
        while not answer.endswith(b"\n"):
            if not select.select([self._replies], [], [], 0.5)[0]:
                if not self._running.alive:
                    raise self._dead()
                continue
            more = os.read(self._replies, 64)
            if not more:
                raise self._dead()
            answer += more
        logits = np.fromfile(self._logits, dtype=np.float32)
        if logits.size != B * T * V or not np.isfinite(logits).all():
            raise RunFailed("the model's logits are not finite, or not as many as asked for")
        return logits.reshape(B, T, V)

    def _dead(self) -> RunFailed:
        outcome = self._running.stop()
        last = outcome.output.strip().split("\n")[-1]
        how = {"timeout": "took too long", "memory": "took too much memory"}.get(outcome.ended, f"ended: {last}")
        return RunFailed(f"the process that computes logits {how}")


def check_remote_causality(first: RemoteModel, second: RemoteModel) -> None:
    """Raise RunFailed when logits depend on later tokens, or on anything but the tokens.

    `second` is a fresh process, so that nothing can be remembered from the rows scored by `first`. It gets some of
    them again as they were, and others with the tail of another row from a random position on.
    """
    if not first.probes:
        return
    rows = [(probe, probe.row) for probe in first.repeats]
    for probe, donor in zip(first.probes, first.probes[1:] + first.repeats[:1], strict=True):
        altered = probe.row.copy()
        altered[probe.position :] = donor.row[probe.position :]
        if altered[probe.position] == probe.row[probe.position]:
            altered[probe.position] = (altered[probe.position] + 1) % first._vocab_size
        rows.append((probe, altered))
    first._random.shuffle(rows)
    # It was the first thing that `first` was asked, too.
    evaluate.check_causality(second, rows[0][1][None], first._vocab_size)
    repeated = {id(probe) for probe in first.repeats}
    noise = change = 0.0
    for i in range(0, len(rows), 8):
        batch = rows[i : i + 8]
        logits = second._ask(np.stack([row for _, row in batch]))
        for (probe, _), own in zip(batch, logits, strict=True):
            now = _logprobs(own[max(0, probe.position - _COMPARED) : probe.position])
            difference = float(np.abs(now - probe.logprobs).max())
            if id(probe) in repeated:
                noise = max(noise, difference)
            else:
                change = max(change, difference)
    if not noise <= _NOISE:
        raise RunFailed(f"the model gives other logits for the same tokens (by {noise:.3g} nats)")
    if not change <= max(_TOLERANCE, 4 * noise):
        raise RunFailed(
            f"the model looks ahead: changing later tokens changed the logits of earlier ones (by {change:.3g} nats)"
        )


def _logprobs(logits: np.ndarray) -> np.ndarray:
    """(n, V) logits -> log-probabilities, float64."""
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
