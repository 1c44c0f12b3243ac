"""Float64 definitions of rope.metal, norm_rope_forward.metal and norm_rope_backward.metal."""

import numpy as np


def rope(x, frequencies):
    """Turns the pair (x[..., i], x[..., i + D/2]) at position t by t · frequencies[i] / 2^64 turns; x: (B, T, H, D)."""
    return {"y": _turn(x, frequencies, 1.0)}


def norm_rope_forward(x, frequencies, eps):
    """rope(x / sqrt(mean(x²) + eps)), the mean over the last axis."""
    return {"y": _turn(x * _reciprocal_rms(x, eps), frequencies, 1.0)}


def norm_rope_backward(x, dy, frequencies, eps):
    """With r = 1 / sqrt(mean(x²) + eps) and g = dy turned back: dx = r (g - x r² mean(g x))."""
    r, g = _reciprocal_rms(x, eps), _turn(dy, frequencies, -1.0)
    return {"dx": r * (g - x * r**2 * (g * x).mean(axis=-1, keepdims=True))}


def _turn(x, frequencies, direction):
    phases = np.arange(x.shape[1], dtype=np.uint64)[:, None] * frequencies.astype(np.uint64)  # modulo a turn
    angles = (phases * (2 * np.pi / 2**64))[:, None, :]  # (T, 1, D/2)
    cos, sin = np.cos(angles), direction * np.sin(angles)
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def _reciprocal_rms(x, eps):
    return 1 / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps[0])
