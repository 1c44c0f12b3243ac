"""RoPE's frequencies: how fast each pair of a head's elements turns."""

from __future__ import annotations

import numpy as np

BASE = 10000.0  # Su et al., arXiv:2104.09864


def frequencies(D: int) -> np.ndarray:
    """BASE ** (-2i / D): the radians that pair i of a head of D elements turns each position; (D/2,) of float64."""
    return BASE ** (-np.arange(0, D, 2) / D)
