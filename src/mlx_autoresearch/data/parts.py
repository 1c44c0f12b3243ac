"""The parts of a corpus: one to train on, and three disjoint ones of the text that is held out.

- `val` decides: val_bpb is measured on it.
- `confirmation` is asked only whether a change that val_bpb speaks for is one.
- `holdout` is read once, at the end, to see how much of a search's gain is luck.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Part = Literal["train", "val", "confirmation", "holdout"]

HELD_OUT: tuple[Part, ...] = ("val", "confirmation", "holdout")
DROPPED = len(HELD_OUT)  # stands for documents that are in no part, because they resemble others
_SHARES = np.array([0.5, 0.25, 0.25])  # of the tokens of the held-out text


def divide(lengths: np.ndarray) -> np.ndarray:
    """(documents,) uint8: an index into HELD_OUT for each held-out document, in order, by its length in tokens.

    Each document goes to the part that is furthest behind its share, so that the parts are spread over the text, and
    the first document validates even where there is no other.
    """
    parts = np.empty(len(lengths), np.uint8)
    behind = np.zeros(len(_SHARES))
    for i, length in enumerate(np.asarray(lengths).tolist()):
        behind += _SHARES * length
        parts[i] = part = int(behind.argmax())
        behind[part] -= length
    return parts
