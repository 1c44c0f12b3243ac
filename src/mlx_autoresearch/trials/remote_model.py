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

from mlx_autoresearch.errors import GPU_INTERRUPTED, GPUInterrupted, MetricRefused
from mlx_autoresearch.metric import bits
from mlx_autoresearch.sandbox.command import Running

from .clock import INTERRUPTED

_PROBED = 3  # rows of a batch that are altered later
_COMPARED = 32  # positions before an altered token whose logits are compared
_NOISE = 0.05  # nats; what the same row may differ by between two processes
_POLL_SECONDS = 0.5  # between two looks whether the process still lives
_LONGEST_REPLY = 64  # bytes


@dataclass(frozen=True)
class Probe:
    """A row (T,) that was scored, a position in it, and the log-probabilities of the positions just before."""

    row: np.ndarray
    position: int
    logprobs: np.ndarray


class RemoteModel:
    """`LanguageModel` over a `child logits` process; its "features" are the logits themselves.

    probes, repeats: rows chosen at random among those scored, for `check_remote_causality`. Raises MetricRefused when
    the process ends or answers with something else than logits.
    """

    def __init__(
        self,
        run: Path,
        code: Path | None,
        vocab_size: int,
        *,
        exchange: Path,
        env: Mapping[str, str],
        seconds: float,
        memory_mb: float | None,
        mark: str,
    ):
        """code: a snapshot of changed code, which is confined; None for the installed code.

        exchange: a folder for the files through which ids and logits pass; the one place a confined process may write.
        """
        self._vocab_size = vocab_size
        # Held open: the process may put links in their place, which we must not follow.
        self._ids, self._logits = ((exchange / name).open("wb+", buffering=0) for name in ("ids", "logits"))
        self._random = random.SystemRandom()  # not to be foreseen
        self.probes: list[Probe] = []
        self.repeats: list[Probe] = []
        requests, self._requests = os.pipe()
        self._replies, replies = os.pipe()
        argv = [sys.executable, "-P", "-m", "mlx_autoresearch.trials.child", "logits"]
        self._running = Running(
            [*argv, str(run.resolve()), str(code.resolve()) if code else "", str(requests), str(replies)],
            cwd=exchange,
            env=env,
            seconds=seconds,
            memory_mb=memory_mb,
            writable=[exchange] if code else None,
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
        ids = np.array(idx, dtype=np.int32)
        logits = self._ask(ids)
        B, T = ids.shape
        if B > 1 and T > 1:
            for i, b in enumerate(self._random.sample(range(B), min(B, 1 + _PROBED))):
                p = self._random.randrange(1, T)
                probe = Probe(ids[b], p, _logprobs(logits[b, max(0, p - _COMPARED) : p]))
                (self.probes if i else self.repeats).append(probe)
        return mx.array(logits)

    def logits(self, hidden: mx.array) -> mx.array:
        """What `hidden` returned."""
        return hidden

    def _ask(self, ids: np.ndarray) -> np.ndarray:
        B, T = ids.shape
        V = self._vocab_size
        size = B * T * V * 4
        for file, length in ((self._ids, 0), (self._logits, 0), (self._logits, size)):
            file.truncate(length)
            file.seek(0)
        ids.tofile(self._ids)
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
        outcome = self._running.stop()
        last = outcome.output.strip().split("\n")[-1]
        how = {"timeout": "took too long", "memory": "took too much memory"}.get(outcome.ended, f"ended: {last}")
        return MetricRefused(f"the process that computes logits {how}")


def check_remote_causality(first: RemoteModel, second: RemoteModel) -> None:
    """Raise MetricRefused when logits depend on later tokens, or on anything but the tokens.

    `second` is a fresh process: it remembers nothing of the rows that `first` scored. It gets some of those rows
    unchanged, and for others with another row's tail from a random position on. Two things are compared before that
    position. No log-probability may change by more than four times what unchanged rows differ by. And on average the
    token that was replaced must not have been more likely in `first` than it is now: a mean over rows shows that even
    where noise would hide it in each.
    """
    if not first.probes:
        return
    rows = [(probe, probe.row) for probe in first.repeats]
    for i, probe in enumerate(first.probes):
        donor = first.repeats[(i + 1) % len(first.repeats)]
        altered = probe.row.copy()
        altered[probe.position :] = donor.row[probe.position :]
        if altered[probe.position] == probe.row[probe.position]:
            altered[probe.position] = (altered[probe.position] + 1) % first._vocab_size
        rows.append((probe, altered))
    first._random.shuffle(rows)
    # The evaluator asked `first` for this at first, too: both processes are treated alike.
    bits.check_causality(second, rows[0][1][None], first._vocab_size)
    repeated = {id(probe) for probe in first.repeats}
    noise = change = 0.0
    gains = []  # nats
    for i in range(0, len(rows), bits.ROWS):
        batch = rows[i : i + bits.ROWS]
        logits = second._ask(np.stack([row for _, row in batch]))
        for (probe, _), own in zip(batch, logits, strict=True):
            now = _logprobs(own[max(0, probe.position - _COMPARED) : probe.position])
            difference = float(np.abs(now - probe.logprobs).max())
            if id(probe) in repeated:
                noise = max(noise, difference)
            else:
                change = max(change, difference)
                token = probe.row[probe.position]
                gains.append(probe.logprobs[-1, token] - now[-1, token])
    if not noise <= _NOISE:
        raise MetricRefused(f"the model gives other logits for the same tokens (by {noise:.3g} nats)")
    if not float(np.mean(gains)) <= max(bits.TOLERANCE, 4 * noise / len(gains) ** 0.5):
        raise MetricRefused(f"the model looks ahead: later tokens gain it {np.mean(gains):.3g} nats a token")
    if not change <= max(bits.TOLERANCE, 4 * noise):
        raise MetricRefused(
            f"the model looks ahead: changing later tokens changed the logits of earlier ones (by {change:.3g} nats)"
        )


def _logprobs(logits: np.ndarray) -> np.ndarray:
    """(n, V) logits -> log-probabilities, float64."""
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
