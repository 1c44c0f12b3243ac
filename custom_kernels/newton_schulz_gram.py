"""Float64 definition of newton_schulz_gram.metal."""


def definition(X):
    """A = X Xᵀ, or Xᵀ X for tall matrices: the smaller of the two. X: (N, m, n)."""
    transposed = X.swapaxes(-2, -1)
    return {"A": transposed @ X if X.shape[-2] > X.shape[-1] else X @ transposed}
