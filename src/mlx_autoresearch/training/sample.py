"""Text from a trained model, one token at a time."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from mlx_autoresearch.data.tokenizer import Tokenizer
from mlx_autoresearch.metric.bits import LanguageModel


def continue_text(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    context: int,
    tokens: int,
    temperature: float,
    seed: int,
) -> str:
    """`prompt`, continued by at most `tokens` tokens, or until the document ends.

    context: tokens that the model sees at once. temperature: 0 takes the likeliest token every time.
    """
    ids = [tokenizer.bos_id, *tokenizer.encode(prompt)]
    rng = np.random.default_rng(seed)
    for _ in range(tokens):
        ids.append(next_token(model, ids[-context:], temperature, rng))
        if ids[-1] == tokenizer.bos_id:  # the document has ended
            break
    return tokenizer.decode(ids)


def next_token(model: LanguageModel, ids: list[int], temperature: float, rng: np.random.Generator) -> int:
    """Draw the token after `ids` from softmax(logits / temperature)."""
    logits = model.logits(model.hidden(mx.array([ids]))[0, -1:]).astype(mx.float32)
    scores = np.array(logits, dtype=np.float64)[0]
    if temperature == 0:
        return int(scores.argmax())
    return int((scores / temperature + rng.gumbel(size=scores.shape)).argmax())  # Gumbel-max: a draw from the softmax
