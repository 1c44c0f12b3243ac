from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_autoresearch.data.reference_packing import reference_rows
from mlx_autoresearch.errors import MetricRefused
from mlx_autoresearch.metric import bits as module
from mlx_autoresearch.metric.bits import evaluate_bpb
from tests.support.arrays import normal

V, T = 12, 8
TOKEN_BYTES = np.array([0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 5, 1], np.int32)  # two special tokens


class Table:
    """Logits looked up by the current token: causal, and easy to score by hand."""

    def __init__(self, table: np.ndarray):
        self.table = mx.array(table.astype(np.float32))

    def hidden(self, idx: mx.array) -> mx.array:
        return mx.take(mx.eye(V), idx, axis=0)

    def logits(self, hidden: mx.array) -> mx.array:
        return hidden @ self.table


def documents(n: int = 30, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    docs = [np.concatenate([[0], rng.integers(2, V, rng.integers(1, 15))]) for _ in range(n)]
    return np.concatenate(docs).astype(np.uint16), np.cumsum([0] + [len(d) for d in docs])


def score(model, eval_tokens: int = 10 * T, **changes):
    tokens, offsets = documents()
    return evaluate_bpb(model, tokens, offsets, TOKEN_BYTES, eval_tokens=eval_tokens, sequence_len=T, **changes)


def nats_by_hand(table: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.log(np.exp(table[x]).sum(-1)) - table[x, y]


def test_bits_and_bytes_are_counted_as_defined() -> None:
    """With rows as long as any document, each is read whole: what it costs does not depend on the packing."""
    table = np.random.default_rng(1).standard_normal((V, V)) * 2
    tokens, offsets = documents()
    got = evaluate_bpb(Table(table), tokens, offsets, TOKEN_BYTES, eval_tokens=10**9, sequence_len=len(tokens))
    x, y = tokens[:-1], tokens[1:]
    counted = TOKEN_BYTES[y] > 0
    nats = nats_by_hand(table, x, y)[counted].sum()
    assert (got.bytes, got.tokens) == (TOKEN_BYTES[tokens].sum(), len(tokens) - len(offsets) + 1)
    assert got.share == 1
    assert got.nats == pytest.approx(nats, rel=1e-6)
    assert got.val_bpb == pytest.approx(nats / math.log(2) / got.bytes, rel=1e-6)


@pytest.mark.parametrize("sequence_len", [1, 2, 3, 8, 200])
def test_all_bytes_are_scored_whatever_the_row_length(sequence_len: int) -> None:
    tokens, offsets = documents()
    got = evaluate_bpb(
        Table(np.zeros((V, V))), tokens, offsets, TOKEN_BYTES, eval_tokens=10**9, sequence_len=sequence_len
    )
    assert (got.bytes, got.tokens, got.share) == (TOKEN_BYTES[tokens].sum(), (tokens > 0).sum(), 1.0)


def test_a_sample_says_its_share() -> None:
    tokens, _ = documents()
    got = score(Table(np.zeros((V, V))), eval_tokens=100)
    assert 90 <= got.tokens <= 100
    assert got.share == got.tokens / (tokens > 0).sum()


def test_what_is_scored_does_not_depend_on_the_row_length() -> None:
    tokens, offsets = documents(300)
    model, asked = Table(np.zeros((V, V))), {"eval_tokens": 500}
    scored = {
        (bpb.bytes, bpb.tokens)
        for n in (1, 5, 64)
        for bpb in [evaluate_bpb(model, tokens, offsets, TOKEN_BYTES, sequence_len=n, **asked)]
    }
    assert len(scored) == 1


def test_a_uniform_guess_costs_log2_v_a_token() -> None:
    got = score(Table(np.zeros((V, V))))
    assert got.nats == pytest.approx(got.tokens * math.log(V), rel=1e-6)


def test_the_references_rows_and_bytes_are_scored_on_demand() -> None:
    table = np.random.default_rng(1).standard_normal((V, V)) * 2
    reference = np.where(TOKEN_BYTES > 0, 3, 0)
    got = score(Table(table), reference_token_bytes=reference)
    tokens, offsets = documents()
    rows = reference_rows(tokens, offsets, sequence_len=T)
    nats = n_tokens = 0
    for _ in range(10):
        row = next(rows)
        x, y = row[:-1], row[1:]
        nats += nats_by_hand(table, x, y)[reference[y] > 0].sum()
        n_tokens += (reference[y] > 0).sum()
    assert got.reference_bpb == pytest.approx(nats / math.log(2) / (3 * n_tokens), rel=1e-6)
    assert replace(got, reference_bpb=None) == score(Table(table))  # which asks for val_bpb alone


def test_chunks_and_batches_do_not_change_the_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Table(np.random.default_rng(2).standard_normal((V, V)))
    whole = score(model)
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 5 * V)
    assert score(model).nats == pytest.approx(whole.nats, rel=1e-6)
    monkeypatch.setattr(module, "ROWS", 3)
    assert score(model).nats == pytest.approx(whole.nats, rel=1e-6)
    assert score(model) == score(model)


def test_never_more_tokens_than_the_split_holds() -> None:
    tokens, _ = documents()
    got = score(Table(np.zeros((V, V))), eval_tokens=10**9)
    assert got.tokens <= len(tokens)


class LooksAhead(Table):
    def hidden(self, idx: mx.array) -> mx.array:
        return super().hidden(mx.concatenate([idx[:, 1:], idx[:, :1]], axis=1))


class LooksAheadInLogits(Table):
    def logits(self, hidden: mx.array) -> mx.array:
        return mx.concatenate([hidden[1:], hidden[:1]]) @ self.table


class Nudge(LooksAhead):
    """Raises the logit of one token, the next one, by half a nat: nearly nothing among all logits of a row."""

    def __init__(self, table: np.ndarray):
        super().__init__(100.0 * np.eye(V))

    def hidden(self, idx: mx.array) -> mx.array:
        return 10.0 * Table.hidden(self, idx) + 0.005 * super().hidden(idx)


class WrongShape(Table):
    def logits(self, hidden: mx.array) -> mx.array:
        return super().logits(hidden)[:, :-1]


class OneLogit(Table):
    def logits(self, hidden: mx.array) -> mx.array:
        return super().logits(hidden)[:, :1]


class WrongRows(Table):
    def hidden(self, idx: mx.array) -> mx.array:
        return super().hidden(idx)[:, ::2] if idx.shape[0] > 1 else super().hidden(idx)


@pytest.mark.parametrize(
    "model, message",
    [
        (LooksAhead, "looks ahead"),
        (LooksAheadInLogits, "looks ahead"),
        (Nudge, "looks ahead"),
        (WrongShape, "must have shape"),
        (OneLogit, "must have shape"),
        (WrongRows, "must have shape"),
    ],
)
def test_models_that_break_the_rules_are_refused(model, message) -> None:
    with pytest.raises(MetricRefused, match=message):
        score(model(np.random.default_rng(3).standard_normal((V, V))))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(bad) -> None:
    table = np.random.default_rng(3).standard_normal((V, V))
    table[5, :] = bad
    with pytest.raises(MetricRefused, match=r"not finite|looks ahead"):
        score(Table(table))


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_rounding_is_not_taken_for_looking_ahead(dtype: mx.Dtype) -> None:
    class Rounded(Table):
        """A causal model whose second pass differs by one rounding of the features' dtype."""

        passes = 0

        def hidden(self, idx: mx.array) -> mx.array:
            self.passes += 1
            scale = 1 + mx.finfo(dtype).eps * (self.passes % 2)
            return (super().hidden(idx) * scale).astype(dtype)

    score(Rounded(15 * np.random.default_rng(5).uniform(-1, 1, (V, V))))


def test_a_row_of_one_token_cannot_look_ahead() -> None:
    tokens, offsets = documents()
    evaluate_bpb(Table(np.zeros((V, V))), tokens, offsets, TOKEN_BYTES, eval_tokens=4, sequence_len=1)


def test_no_text_to_score_is_said() -> None:
    tokens, offsets = np.zeros(20, np.uint16), np.arange(21)
    with pytest.raises(MetricRefused, match="no text"):
        evaluate_bpb(Table(np.zeros((V, V))), tokens, offsets, TOKEN_BYTES, eval_tokens=16, sequence_len=T)


def test_large_logits_do_not_overflow() -> None:
    table = np.array(normal((V, V), 4)) * 1e4
    assert math.isfinite(score(Table(table)).val_bpb)


def test_a_recipe_with_another_exp_is_scored_with_the_same_digits() -> None:
    """An experiment may change `fastmath`, and its winner may be checked out and installed."""
    script = """
import mlx.core as mx, numpy as np
from mlx_autoresearch.recipe import fastmath
if {changed}:
    fastmath.exp = lambda x: mx.exp(0.99 * x)
from tests.metric.test_bits import Table, V, score
print(repr(score(Table(np.random.default_rng(7).standard_normal((V, V))))))
"""
    scores = [
        subprocess.run(
            [sys.executable, "-c", script.format(changed=changed)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            check=True,
        ).stdout
        for changed in (False, True)
    ]
    assert scores[0].startswith(b"Bpb(val_bpb=")
    assert scores[0] == scores[1]


def test_the_copy_of_the_fast_exp_is_as_exact_as_the_metric_needs() -> None:
    x = -np.concatenate([np.linspace(0, 20, 10_001), np.linspace(20, 200, 1_001)[1:]]).astype(np.float32)
    got = np.array(mx.compile(module._exp)(mx.array(x)), dtype=np.float64)
    exact = np.exp(x.astype(np.float64))
    near = x >= -20
    assert np.abs(got[near] / exact[near] - 1).max() < 1e-5
    assert np.abs(got[~near] - exact[~near]).max() < 1e-12
