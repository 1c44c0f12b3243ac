"""Float64 definition of newton_schulz_polynomial.metal."""


def definition(A, coefficients):
    """B = b A + c A A, the polynomial inside a Newton-Schulz step. A: (N, n, n), each matrix symmetric."""
    return {"B": coefficients[0] * A + coefficients[1] * (A @ A)}
