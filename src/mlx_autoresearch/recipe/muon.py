"""Muon, the optimizer of the matrices inside the blocks: one update as a pure function.

As the reference's: Nesterov momentum, Polar Express orthogonalisation (Amsel et al., arXiv:2505.16932), NorMuon's
variance reduction (Li et al., arXiv:2510.05491) and cautious weight decay (Liang et al., arXiv:2411.16085).
"""

from __future__ import annotations

import mlx.core as mx

from mlx_autoresearch.kernels.operation import Implementation, Language, Operation, random_like
from mlx_autoresearch.machine.device import is_gpu
from mlx_autoresearch.machine.resident import resident

# (a, b, c) of X <- aX + (bA + cA²)X with A = XXᵀ, for 5 iterations with a safety factor of 2e-2.
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)

_MOST_FLOP = 0.25e12  # of a product of several matrices on a GPU: macOS stops one that works long at once


def newton_schulz(
    g: mx.array, steps: int, dtype: mx.Dtype = mx.float32, *, implementation: Implementation = "auto"
) -> mx.array:
    """Orthogonalise each matrix of (K, m, n): U Vᵀ of its singular value decomposition, approximately.

    steps: iterations, 0 ... 5. The Frobenius norm is taken in float32; the products run in `dtype`, which is also the
    result's. Rounding errors in float16 are about a seventh of those in bfloat16; rows below 1e-6 of the largest are 0
    there. implementation: see `kernels.operation`. Raises ValueError when it cannot run here.
    """
    if g.ndim == 3 and g.size and is_gpu():
        K, m, n = g.shape
        most = max(1, int(_MOST_FLOP / (2 * m * n * min(m, n))))
        if most < K:
            parts = [g[i : i + most] for i in range(0, K, most)]
            return mx.concatenate(
                [_NEWTON_SCHULZ(part, implementation=implementation, steps=steps, dtype=dtype) for part in parts]
            )
    return _NEWTON_SCHULZ(g, implementation=implementation, steps=steps, dtype=dtype)


def _normalised(g: mx.array, dtype: mx.Dtype) -> mx.array:
    """g / its Frobenius norm, for each matrix: no singular value is above 1, as POLAR_EXPRESS needs it."""
    x = g.astype(mx.float32)
    frobenius = mx.sqrt(mx.square(x).sum(axis=(-2, -1), keepdims=True))
    return (x / (frobenius * 1.02 + 1e-6)).astype(dtype)


def _composed_newton_schulz(g: mx.array, *, steps: int, dtype: mx.Dtype) -> mx.array:
    x = _normalised(g, dtype)
    tall = x.shape[-2] > x.shape[-1]
    # As an array: `mx.compile` would write numbers into its loops, and compile them anew for each iteration.
    # Split, because an integer index is a gather, which would copy each to where a GPU's threads read it slowly.
    coefficients = mx.split(mx.array(POLAR_EXPRESS).astype(dtype).reshape(-1), 3 * len(POLAR_EXPRESS))
    for i in range(min(steps, len(POLAR_EXPRESS))):
        a, b, c = (x.squeeze() for x in coefficients[3 * i : 3 * i + 3])
        xt = x.swapaxes(-2, -1)
        A = xt @ x if tall else x @ xt  # the smaller Gram matrix
        B = b * A + c * (A @ A)
        x = a * x + (x @ B if tall else B @ x)
    return x


def _custom_newton_schulz(g: mx.array, *, steps: int, dtype: mx.Dtype, language: Language) -> mx.array:
    from .kernels.newton_schulz import newton_schulz_steps

    return newton_schulz_steps(_normalised(g, dtype), POLAR_EXPRESS[:steps], implementation=language)


_NEWTON_SCHULZ = Operation(
    "newton_schulz", _composed_newton_schulz, _custom_newton_schulz, differentiable=(), example=random_like
)


def muon_update(
    p: mx.array,
    g: mx.array,
    momentum_buffer: mx.array,
    second_moment: mx.array,
    *,
    lr: mx.array | float,
    momentum: mx.array | float,
    beta2: float,
    weight_decay: mx.array | float,
    ns_steps: int,
    ns_dtype: mx.Dtype = mx.float32,
    implementation: Implementation = "auto",
) -> tuple[mx.array, mx.array, mx.array]:
    """One Muon step on a batch of matrices (K, m, n), in float32 but for the orthogonalisation.

    second_moment: (K, m, 1) when m >= n, else (K, 1, n). Returns the new parameters, momentum and second moment.
    """
    m, n = p.shape[-2:]
    momentum = resident(mx.array(momentum))
    g = g.astype(mx.float32)
    momentum_buffer = momentum * momentum_buffer + (1 - momentum) * g
    nesterov = momentum * momentum_buffer + (1 - momentum) * g
    u = newton_schulz(nesterov, ns_steps, ns_dtype, implementation=implementation).astype(mx.float32)

    # NorMuon: even out rows (or columns) by their running second moment, keeping the norm of the whole update.
    axis, size = (-1, n) if m >= n else (-2, m)
    v_mean = mx.square(u).mean(axis=axis, keepdims=True)
    norm_before = mx.sqrt(v_mean.sum(axis=(-2, -1), keepdims=True) * size)
    second_moment = beta2 * second_moment + (1 - beta2) * v_mean
    scale = mx.rsqrt(mx.maximum(second_moment, 1e-10))
    norm_after = mx.sqrt((v_mean * size * mx.square(scale)).sum(axis=(-2, -1), keepdims=True))
    u = u * (scale * (norm_before / mx.maximum(norm_after, 1e-10)))

    # Cautious weight decay: only where it points the same way as the update.
    lr, weight_decay = resident(mx.array(lr * max(1.0, m / n) ** 0.5)), resident(mx.array(weight_decay))
    decay = weight_decay * p * ((u * p) >= 0)
    return p - lr * (u + decay), momentum_buffer, second_moment
