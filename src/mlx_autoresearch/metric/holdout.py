"""The holdout: validation documents that the metric never reads, for one last measurement that no decision has seen.

The metric always scores the same tokens, and the validation split holds more. The rest has never been trained on and
never been scored, so it shows whether many decisions have fitted the scored part by chance. Every source has one:
nothing else need be prepared, and no val_bpb changes. Where documents are pieces of files (stdlib, text, gutenberg),
the holdout and the scored part come from the same files, so they resemble each other.
"""

from __future__ import annotations

import numpy as np

from mlx_autoresearch.data.packing import PackedBatches
from mlx_autoresearch.errors import UserError

from .bits import scored_rows

_LEAST_ROWS = 16


def holdout_documents(
    tokens: np.ndarray, offsets: np.ndarray, *, eval_tokens: int, sequence_len: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and offsets, as `evaluate_bpb` takes them, of the documents it leaves out of this validation split.

    tokens (N,), offsets (documents + 1,), eval_tokens and sequence_len: the split and the settings of the metric.
    Raises UserError when less than 16 rows of text are left over.
    """
    packed = PackedBatches(tokens, offsets, batch_size=1, sequence_len=sequence_len)
    for _ in range(scored_rows(len(tokens), eval_tokens=eval_tokens, sequence_len=sequence_len)):
        next(packed)
    tokens, offsets = np.asarray(tokens), np.asarray(offsets)
    documents = [tokens[offsets[i] : offsets[i + 1]] for i in packed.untouched()]
    left = sum(map(len, documents))
    if left < _LEAST_ROWS * (sequence_len + 1):
        raise UserError(
            f"the metric reads nearly all of the validation text ({left:,} of {len(tokens):,} tokens are left): for "
            "a holdout, give a search more text, a larger data.source.val_fraction or fewer evaluate.eval_tokens"
        )
    return np.concatenate(documents), np.cumsum([0, *map(len, documents)])
