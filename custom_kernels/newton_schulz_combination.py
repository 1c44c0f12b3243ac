"""Float64 definition of newton_schulz_combination.metal."""


def definition(X, B, a):
    """Y = a X + B X, or a X + X B for tall matrices. X: (N, m, n); B: (N, s, s) with s = min(m, n), symmetric."""
    return {"Y": a[0] * X + (X @ B if X.shape[-2] > X.shape[-1] else B @ X)}
