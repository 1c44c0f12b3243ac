"""Whether scored losses depend on the tokens before them, and on nothing else.

A model that was scored is asked again, in a process that has never seen how the rows go on. Each row comes as often as
`CUTS` says, in the same place of a call of the same shape, beside other rows: true up to a secret cut, random tokens
behind it. Up to the cut every target's loss must be the one that was scored. Whoever looked ahead there cannot say so
again: the token that was looked at is missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import mlx.core as mx
import numpy as np

from mlx_autoresearch.errors import MetricRefused

from .bits import LanguageModel, Scored, token_nats

CUTS = 2  # of each row
_LEAST = 1e-4  # nats that a loss may differ by: other orders of summation, in float32
_ROUNDINGS = 4  # of the model's dtype, relative to 1 and the loss
_SIGMAS = 4.0  # of the number, and of the sum, of differences that speak for the true token


def check_scored(
    model: LanguageModel, scored: Sequence[Scored], *, vocab_size: int, eps: float, rng: np.random.Generator
) -> None:
    """Raise MetricRefused if the losses in `scored` depend on anything but the tokens up to them.

    model: the one that was scored, in a process that remembers nothing of it. scored: all batches, rows of one length.
    eps: of the dtype in which the model computes. rng: not to be foreseen by the model.

    A loss may differ by 1e-4 nats or, for coarse dtypes, by four roundings of itself: no noise of the model's own makes
    that more. Where some differ by less, the targets behind the cuts must not be worse off than chance explains, by
    their number and by their sum.
    """
    changes: list[np.ndarray] = []
    for inputs, targets, losses, cuts in altered(scored, vocab_size, rng):
        again = token_nats(model, mx.array(inputs), mx.array(targets), vocab_size)
        before = np.arange(inputs.shape[1]) < cuts[:, None]
        excess = np.abs(again - losses) - np.maximum(_LEAST, _ROUNDINGS * eps * (1 + losses))
        if (excess[before] > 0).any():
            raise MetricRefused(
                "the model looks ahead, or gives other logits for the same tokens: with other tokens behind, beside "
                f"other rows, a loss changed by {np.abs(again - losses)[before].max():.3g} nats"
            )
        changes.append((again - losses)[np.arange(len(cuts)), cuts - 1])
    change = np.concatenate([np.zeros(0), *changes])
    if favours_the_truth(np.sign(change)) or favours_the_truth(change):
        raise MetricRefused(
            f"the model looks ahead: without them, {(change > 0).sum()} of {(change != 0).sum()} next tokens became "
            f"less likely, and all together lost {change.sum():.3g} nats"
        )


def draw_cuts(rows: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """(rows, CUTS) increasing: how many tokens of each row stay, 1 ... length - 1, each equally likely in every row.

    All together are spread evenly: the places are divided into as many equal pieces as there are cuts, one in each.
    """
    n = rows * CUTS
    places = (rng.permutation(n) + rng.random(n)) / n
    return np.sort(1 + (places * (length - 1)).astype(np.int64).reshape(rows, CUTS), axis=1)


def favours_the_truth(change: np.ndarray) -> bool:
    """Whether losses (nats) rose by more without the true next token than chance explains: four standard deviations.

    Rounding alone makes each change as likely as its opposite; then their sum has the sum of their squares as variance.
    """
    return bool(change.sum() > _SIGMAS * math.sqrt(np.square(change).sum()))


def altered(
    scored: Sequence[Scored], vocab_size: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Calls: inputs with random tokens behind the cuts, the true targets, their scored losses, and the cuts (B,).

    A row keeps its place in the batch, for the same rounding, but not its neighbours. All shorter cuts come first: a
    longer one shows what stood behind.
    """
    if not scored or scored[0].inputs.shape[1] < 2:
        return
    text = np.concatenate([batch.inputs.ravel() for batch in scored])
    cuts = draw_cuts(sum(len(batch.inputs) for batch in scored), scored[0].inputs.shape[1], rng)
    starts = np.cumsum([0, *(len(batch.inputs) for batch in scored)])
    for turn in range(CUTS):
        for size in sorted({len(batch.inputs) for batch in scored}):
            alike = [i for i, batch in enumerate(scored) if len(batch.inputs) == size]
            orders = np.stack([rng.permutation(alike) for _ in range(size)])  # (place, call): whose row stands there
            for call in orders.T:
                inputs, targets, losses = (
                    np.stack([getattr(scored[i], name)[place] for place, i in enumerate(call)])
                    for name in ("inputs", "targets", "losses")
                )
                cut = cuts[starts[call] + np.arange(size), turn]
                yield _with_random_tails(inputs, cut, text, vocab_size, rng), targets, losses, cut


def _with_random_tails(
    inputs: np.ndarray, cuts: np.ndarray, text: np.ndarray, vocab_size: int, rng: np.random.Generator
) -> np.ndarray:
    """Tokens of `text`, in no order, from each row's cut on; the first of them is another token than was there."""
    B, T = inputs.shape
    altered = np.where(np.arange(T) < cuts[:, None], inputs, rng.choice(text, (B, T)))
    first = np.arange(B), cuts
    altered[first] += altered[first] == inputs[first]
    return altered % vocab_size
