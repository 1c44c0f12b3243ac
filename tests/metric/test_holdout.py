from __future__ import annotations

from itertools import pairwise

import mlx.core as mx
import numpy as np
import pytest

from mlx_autoresearch.data.packing import PackedBatches
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.metric.bits import evaluate_bpb
from mlx_autoresearch.metric.holdout import holdout_documents

T = 16


class Spy:
    """A model that remembers every token it is shown; its logits say nothing."""

    def __init__(self, vocab_size: int):
        self.vocab_size = vocab_size
        self.seen: set[int] = set()

    def hidden(self, idx: mx.array) -> mx.array:
        self.seen |= set(np.array(idx).ravel().tolist())
        return mx.zeros((*idx.shape, 1))

    def logits(self, hidden: mx.array) -> mx.array:
        return mx.zeros((*hidden.shape[:-1], self.vocab_size))


def corpus(lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Documents of which each is an even token of its own, repeated: what was read of them can be told."""
    tokens = np.concatenate([np.full(n, 2 * i + 2, dtype=np.uint16) for i, n in enumerate(lengths)])
    return tokens, np.cumsum([0, *lengths])


@pytest.mark.parametrize("seed", range(3))
def test_the_evaluator_reads_and_scores_nothing_of_the_holdout(seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 60, size=400).tolist()
    tokens, offsets = corpus(lengths)
    metric = {"eval_tokens": 1000, "sequence_len": T}
    held, held_offsets = holdout_documents(tokens, offsets, **metric)

    spy = Spy(1000)
    everything = np.ones(1000, dtype=np.int32)
    but_holdout = np.where(np.isin(np.arange(1000), held), 0, 1)
    score, again = (evaluate_bpb(spy, tokens, offsets, b, **metric) for b in (everything, but_holdout))
    assert not spy.seen & set(held.tolist())  # odd tokens are those that the probe of causality makes up
    assert score == again

    documents = [held[a:b] for a, b in pairwise(held_offsets)]
    assert [d.tolist() for d in documents] == [[d[0]] * lengths[d[0] // 2 - 1] for d in documents]  # whole ones
    assert len(held) > len(tokens) - 3 * 1000  # and most of what can be had


def test_text_that_is_scored_whole_leaves_no_holdout() -> None:
    tokens, offsets = corpus([20] * 40)
    with pytest.raises(UserError, match="val_fraction"):
        holdout_documents(tokens, offsets, eval_tokens=800, sequence_len=T)


def test_untouched_documents_over_several_epochs() -> None:
    tokens, offsets = corpus([5, 9, 30, 2, 7])
    packed = PackedBatches(tokens, offsets, batch_size=1, sequence_len=T, buffer_size=7, refill_batch=3)
    seen: set[int] = set()
    assert packed.untouched().tolist() == [0, 1, 2, 3, 4]
    for _ in range(12):
        batch = next(packed)
        seen |= set(batch.inputs.ravel().tolist()) | set(batch.targets.ravel().tolist())
        assert {2 * int(i) + 2 for i in packed.untouched()} == {2, 4, 6, 8, 10} - seen
