"""Float64 definitions of embedding_forward.metal and embedding_backward.metal."""

import numpy as np


def embedding_forward(ids, weight):
    """Rows of weight (V, C)."""
    return {"out": weight[ids]}


def embedding_backward(order, ends, dy):
    """Row v is the sum of dy[order[i]] for i from ends[v - 1], or 0, to ends[v] - 1."""
    begins = np.concatenate([[0], ends[:-1]])
    rows = [dy[order[begin:end]].sum(axis=0) for begin, end in zip(begins, ends, strict=True)]
    return {"d_weight": np.stack(rows)}
