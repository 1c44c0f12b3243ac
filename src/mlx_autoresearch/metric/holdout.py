"""The holdout: validation documents that the evaluator never reads, for one last look that no decision has had.

The metric scores a fixed number of tokens, always the same ones, and validation text holds more. What is left over has
never been trained on and never been scored, so it can tell whether many decisions have fitted the scored part by
chance. It exists for every source, without other data being prepared and without any val_bpb changing. Where documents
are pieces of files (stdlib, text, gutenberg) it comes from the same files as the scored part, and is only as different
from it as two pieces of a file are.
"""

from __future__ import annotations

import numpy as np

from mlx_autoresearch.data.packing import PackedBatches
from mlx_autoresearch.errors import UserError

_LEAST_ROWS = 16


def holdout_documents(
    tokens: np.ndarray, offsets: np.ndarray, *, eval_tokens: int, sequence_len: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and offsets, as `evaluate_bpb` takes them, of the documents it leaves out of this validation split.

    tokens (N,), offsets (documents + 1,), eval_tokens and sequence_len: the split and the settings of the metric.
    Raises UserError when less than 16 rows of text are left over.
    """
    packed = PackedBatches(tokens, offsets, batch_size=1, sequence_len=sequence_len)
    for _ in range(max(1, min(eval_tokens, len(tokens)) // sequence_len)):  # the rows that evaluate_bpb scores
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
