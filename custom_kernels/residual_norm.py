"""Float64 definitions of residual_norm_forward, residual_norm_backward and mixed_norm_backward."""

import numpy as np


def residual_norm_forward(x, y, a, b, eps):
    """s = a x + b y and n = s / sqrt(mean(s²) + eps), the mean over the last axis."""
    s = a * x + b * y
    return {"s": s, "n": s * _reciprocal_rms(s, eps)}


def residual_norm_backward(s, ds, dn, eps):
    """With r = 1 / sqrt(mean(s²) + eps): ds + r (dn - s r² mean(dn s))."""
    r = _reciprocal_rms(s, eps)
    return {"dx": ds + r * (dn - s * r**2 * (dn * s).mean(axis=-1, keepdims=True))}


def mixed_norm_backward(x, y, a, b, ds, dn, eps):
    """The same gradient d of s = a x + b y, passed on: a d, b d, and (d · x, d · y) of every row."""
    d = residual_norm_backward(a * x + b * y, ds, dn, eps)["dx"]
    return {"dx": a * d, "dy": b * d, "d_gains": np.stack([(d * x).sum(-1), (d * y).sum(-1)], axis=-1)}


def _reciprocal_rms(s, eps):
    return 1 / np.sqrt((s**2).mean(axis=-1, keepdims=True) + eps[0])
