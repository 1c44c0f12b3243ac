"""val_bpb, the frozen metric: bits per byte on held-out text.

The evaluator trusts a model with logits only. It packs the validation rows (`rows`), turns logits into bits and counts
bytes itself, rejects logits that are not finite or have the wrong shape, and checks that no position sees a later
token. It imports nothing of the recipe, so that no experiment can change the metric's arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Protocol

import mlx.core as mx
import numpy as np

from mlx_autoresearch.data.reference_packing import reference_rows
from mlx_autoresearch.errors import MetricRefused
from mlx_autoresearch.machine.device import cpu_compiler_available, is_gpu

from .rows import Row, pack, sample, scorable

CHUNK_ELEMENTS = 2**23  # logits held at once: 32 MiB of float32, whatever the vocabulary and the row length
ROWS = 8  # rows of one forward pass, at most; fixed, so that the same model gives the same digits
TOKENS = 8192  # of one forward pass, unless a row is longer: macOS stops a GPU that works long at once
_SUMMED = 128  # float32 terms that are added one by one, at most
TOLERANCE = 0.01  # nats by which a log-probability may change when later tokens do
# The largest logit may be this large: float32 rounds greater ones by more than TOLERANCE.
_LARGEST_LOGIT = TOLERANCE / float(np.finfo(np.float32).eps)


class LanguageModel(Protocol):
    """What the evaluator asks of a model: features of every position, and logits of any of them."""

    def hidden(self, idx: mx.array) -> mx.array:
        """(B, T) ids -> (B, T, C) features; position i may depend on ids 0 ... i only."""
        ...

    def logits(self, hidden: mx.array) -> mx.array:
        """(..., C) features -> (..., V) logits of the next token."""
        ...


@dataclass(frozen=True)
class Bpb:
    """Bits per byte with its two sums, over tokens that stand for at least one byte.

    tokens: how many were scored. share: of all tokens of the split but BOS. reference_bpb: `reference_bpb` of the same
    text, None unless it was asked for.
    """

    val_bpb: float
    nats: float
    bytes: int
    tokens: int
    share: float
    reference_bpb: float | None = None


class Scored(NamedTuple):
    """A batch of rows that was scored, (B, T) each.

    inputs and targets: token ids. losses: nats of each target, float64. counted: which are in the metric's sums.
    documents: which one each target that counts is in.
    """

    inputs: np.ndarray
    targets: np.ndarray
    losses: np.ndarray
    counted: np.ndarray
    documents: np.ndarray


@dataclass(frozen=True)
class DocumentBits:
    """Of each document: nats (n,) float64 and bytes (n,) int64, over tokens that stand for at least one byte."""

    nats: np.ndarray
    bytes: np.ndarray


def evaluate_bpb(
    model: LanguageModel,
    tokens: np.ndarray,
    offsets: np.ndarray,
    token_bytes: np.ndarray,
    *,
    eval_tokens: int,
    sequence_len: int,
    reference_token_bytes: np.ndarray | None = None,
    record: list[Scored] | None = None,
) -> Bpb:
    """Score `model` on whole documents of the validation split, every token of theirs but BOS exactly once.

    tokens (N,) and offsets (documents + 1,): the split, each document with BOS first. token_bytes: (V,) bytes of each
    token, 0 for special tokens, which are left out of both sums. eval_tokens: how many tokens to score at most; which
    documents they are in depends on this and the text alone. sequence_len: length of the rows that they are packed
    in. reference_token_bytes: (V,), asks for `reference_bpb`, too, which takes as long again. record: gets every batch
    that was scored, for `causality.check_scored`; here causality is not checked then.
    Raises MetricRefused when the model's logits are unusable.
    """
    chosen = sample(offsets, eval_tokens)
    rows = pack(tokens, offsets, chosen, sequence_len=sequence_len)
    total, n_bytes, n_tokens = _score(model, rows, token_bytes, sequence_len, record)
    reference = None
    if reference_token_bytes is not None:
        reference = reference_bpb(
            model, tokens, offsets, reference_token_bytes, eval_tokens=eval_tokens, sequence_len=sequence_len
        )
    share = float(scorable(offsets)[chosen].sum() / scorable(offsets).sum())
    return Bpb(total / (math.log(2) * n_bytes), total, n_bytes, n_tokens, share, reference)


def document_bits(
    model: LanguageModel,
    tokens: np.ndarray,
    offsets: np.ndarray,
    token_bytes: np.ndarray,
    documents: np.ndarray,
    *,
    sequence_len: int,
    record: list[Scored] | None = None,
) -> DocumentBits:
    """What `model` needs for each of `documents`, indices into the split; the other arguments as `evaluate_bpb`'s.

    Models can be compared on the same documents, packed in the same rows. Raises MetricRefused when the model's logits
    are unusable.
    """
    rows = pack(tokens, offsets, documents, sequence_len=sequence_len)
    nats, n_bytes = np.zeros(len(offsets) - 1), np.zeros(len(offsets) - 1, np.int64)
    for batch in _scored(model, rows, token_bytes, sequence_len, record):
        counted, document = batch.counted, batch.documents[batch.counted]
        np.add.at(nats, document, batch.losses[counted])
        np.add.at(n_bytes, document, token_bytes[batch.targets[counted]])
    return DocumentBits(nats[documents], n_bytes[documents])


def reference_bpb(
    model: LanguageModel,
    tokens: np.ndarray,
    offsets: np.ndarray,
    reference_token_bytes: np.ndarray,
    *,
    eval_tokens: int,
    sequence_len: int,
) -> float:
    """Bits per byte as karpathy/autoresearch's `evaluate_bpb` measures them, to compare with published figures only.

    Its rows crop documents, and repeat some where the text is short. reference_token_bytes: (V,) its count of bytes,
    which takes a token that is part of a UTF-8 character for a three-byte replacement character. The other arguments
    are those of `evaluate_bpb`. Raises MetricRefused when the model's logits are unusable.
    """
    every, unknown = np.ones(sequence_len, bool), np.zeros(sequence_len, np.int64)
    found = reference_rows(tokens, offsets, sequence_len=sequence_len)
    rows = (Row(row, every, unknown) for row in found)
    count = max(1, min(eval_tokens, len(tokens)) // sequence_len)
    total, n_bytes, _ = _score(model, islice(rows, count), reference_token_bytes, sequence_len)
    return total / (math.log(2) * n_bytes)


def _score(
    model: LanguageModel,
    rows: Iterable[Row],
    token_bytes: np.ndarray,
    sequence_len: int,
    record: list[Scored] | None = None,
) -> tuple[float, int, int]:
    """The sums over the scored targets of `rows`: nats, bytes, tokens."""
    nats: list[float] = []
    n_bytes = n_tokens = 0
    for batch in _scored(model, rows, token_bytes, sequence_len, record):
        nats.append(math.fsum(batch.losses[batch.counted].tolist()))
        n_bytes += int(token_bytes[batch.targets[batch.counted]].sum())
        n_tokens += int(batch.counted.sum())
    if not n_bytes:
        raise MetricRefused("the validation rows hold no text, so bits per byte are undefined")
    return math.fsum(nats), n_bytes, n_tokens


def _scored(
    model: LanguageModel,
    rows: Iterable[Row],
    token_bytes: np.ndarray,
    sequence_len: int,
    record: list[Scored] | None,
) -> Iterator[Scored]:
    """Batch by batch. record: gets every batch, and then the first row is not checked for causality."""
    vocab_size, count = len(token_bytes), max(1, min(ROWS, TOKENS // sequence_len))
    remaining = iter(rows)
    for i, batch in enumerate(iter(lambda: list(islice(remaining, count)), [])):
        tokens = np.stack([row.tokens for row in batch])  # (B, T + 1)
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        counted = np.stack([row.scored for row in batch]) & (token_bytes[targets] > 0)
        if i == 0 and record is None:
            check_causality(model, inputs[:1], vocab_size)
        losses = token_nats(model, mx.array(inputs), mx.array(targets), vocab_size)
        scored = Scored(inputs, targets, losses, counted, np.stack([row.document for row in batch]))
        if record is not None:
            record.append(scored)
        yield scored


def check_causality(model: LanguageModel, row: np.ndarray, vocab_size: int) -> None:
    """Raise MetricRefused if changing the second half of a row (1, T) changes log-probabilities in its first half.

    row: token ids. Both passes compute the same shapes in the same order, so a causal model differs by rounding only:
    0.01 nats are allowed, or twice the rounding of the largest logit in the dtype of the features.
    """
    half = row.shape[1] // 2
    if not half:
        return
    altered = row.copy()
    altered[:, half:] = (altered[:, half:] + 1) % vocab_size
    features = [model.hidden(mx.array(r))[0] for r in (row, altered)]
    before, after = (model.logits(x)[:half].astype(mx.float32) for x in features)
    largest = float(mx.abs(before).max().item())  # type: ignore[arg-type]
    if not math.isfinite(largest):
        raise MetricRefused("the model's logits are not finite on the validation text")
    _check_size(float(mx.abs(before.max(axis=-1)).max().item()))  # type: ignore[arg-type]
    change = float(mx.abs(_log_probabilities(before) - _log_probabilities(after)).max().item())  # type: ignore[arg-type]
    if not change <= max(TOLERANCE, 2 * mx.finfo(features[0].dtype).eps * largest):
        raise MetricRefused(
            f"the model looks ahead: changing later tokens changed the logits of earlier ones (by {change:.3g} nats)"
        )


def _log_probabilities(logits: mx.array) -> mx.array:
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def token_nats(model: LanguageModel, inputs: mx.array, targets: mx.array, vocab_size: int) -> np.ndarray:
    """Cross-entropy in nats of every target, (B, T) float64, a chunk of positions at a time."""
    B, T = inputs.shape
    hidden = model.hidden(inputs)
    if hidden.shape[:2] != (B, T):
        raise MetricRefused(f"the model's features must have shape ({B}, {T}, C), got {hidden.shape}")
    hidden = hidden.reshape(B * T, -1)
    labels = targets.reshape(B * T, 1)
    rows = max(1, CHUNK_ELEMENTS // vocab_size)
    chunks = []
    for i in range(0, B * T, rows):
        logits = model.logits(hidden[i : i + rows])
        expected = (min(rows, B * T - i), vocab_size)
        if logits.shape != expected:
            raise MetricRefused(f"the model's logits must have shape {expected}, got {logits.shape}")
        chunk, top = _cross_entropy(logits, labels[i : i + rows])
        mx.eval(chunk, top)
        chunks.append(np.array(chunk, dtype=np.float64))
        largest = float(top.item())  # type: ignore[arg-type]
        if math.isfinite(largest):
            _check_size(largest)
    losses = np.concatenate(chunks).reshape(B, T)
    if not np.isfinite(losses).all():
        raise MetricRefused("the model's logits are not finite on the validation text")
    return losses


def _check_size(top: float) -> None:
    """Raise MetricRefused for rows whose largest logit has such a size, either sign, that float32 cannot carry it."""
    if top > _LARGEST_LOGIT:
        raise MetricRefused(
            f"the model's logits are too large for float32 (about {top:.3g}, at most {_LARGEST_LOGIT:,.0f}): their "
            f"differences would be rounded by more than {TOLERANCE} nats"
        )


@mx.compile
def _cross_entropy(logits: mx.array, labels: mx.array) -> tuple[mx.array, mx.array]:
    """The nats of each row's label, and the greatest size of any row's largest logit.

    All is relative to the row's largest logit before anything is added: the sum is at least 1 and its logarithm at
    least 0, so nothing cancels, and no logits cost less than nothing.
    """
    logits = logits.astype(mx.float32)
    top = logits.max(axis=-1, keepdims=True)
    below = logits - top
    log_total = mx.log(_sum(_exp(below)))
    return (log_total - mx.take_along_axis(below, labels, axis=-1))[:, 0], mx.abs(top).max()


def _sum(terms: mx.array) -> mx.array:
    """(n, V) -> (n, 1): sums of sums.

    One sum would lose every term below 6e-8 of what stands before it, and V of them may be worth V times as much.
    """
    n, V = terms.shape
    whole = V // _SUMMED * _SUMMED
    sums = [terms[:, :whole].reshape(n, V // _SUMMED, _SUMMED).sum(axis=-1)] if whole else []
    if whole < V:
        sums.append(terms[:, whole:].sum(axis=-1, keepdims=True))
    return mx.concatenate(sums, axis=-1).sum(axis=-1, keepdims=True)


def _exp(x: mx.array) -> mx.array:
    """Element-wise e**x for x <= 0 in float32; relative error below 1e-5 down to x = -20, absolute below 1e-12 beyond.

    A copy of the recipe's `fastmath.exp`, the one piece of code that stands twice: experiments may change theirs. On a
    CPU with a compiler it is (e**(-x/128))**-128 by a Taylor polynomial of degree 6, one vectorised loop, where
    `mx.exp` calls libm for every element.
    """
    if is_gpu() or not cpu_compiler_available():
        return mx.exp(x)
    y = x * (-1 / 128)
    y2 = y * y
    q = y * ((1.0 + y * (1 / 2)) + y2 * (1 / 6 + y * (1 / 24)) + (y2 * y2) * (1 / 120 + y * (1 / 720)))
    q = q * (2.0 + q)
    q = mx.squeeze(mx.expand_dims(q, 0), 0)  # ends a loop here: one with more than 11 levels would fall apart
    q = q * (2.0 + q)
    q = q * (2.0 + q)
    p = 1.0 + q
    for _ in range(4):
        p = p * p
    return 1.0 / p
