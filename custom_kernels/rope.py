"""Float64 definition of rope.metal."""

import numpy as np


def definition(x, base):
    """Rotates the pair (x[..., i], x[..., i + D/2]) at position t by -t · base^(-2i/D). x: (B, T, H, D)."""
    _, length, _, head_dim = x.shape
    frequencies = base[0] ** (-2.0 * np.arange(head_dim // 2) / head_dim)
    angles = np.arange(length)[:, None, None] * frequencies  # (T, 1, D/2)
    cos, sin = np.cos(angles), np.sin(angles)
    a, b = np.split(x, 2, axis=-1)
    return {"y": np.concatenate([a * cos + b * sin, b * cos - a * sin], axis=-1)}
