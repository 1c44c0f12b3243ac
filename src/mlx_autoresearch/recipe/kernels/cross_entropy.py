"""Cross-entropy of softcapped logits by hand-written kernels, which never hold them in float32 outside the chip."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import mlx.core as mx

from mlx_autoresearch.kernels.launch import launch
from mlx_autoresearch.kernels.operation import Language
from mlx_autoresearch.simulator.arrays import dtype_name
from mlx_autoresearch.simulator.signature import SMALL

from ..autodiff import with_vjp
from ..shapes import check_float


def softcapped_cross_entropy(
    logits: mx.array, targets: mx.array, softcap: float | None, *, implementation: Language
) -> tuple[mx.array, mx.array]:
    """Cross-entropy in nats of s = softcap * tanh(logits / softcap) against targets, and the log-sum-exp of s.

    logits: (N, V) in float32, float16 or bfloat16. targets: (N,) of integers in 0 ... V-1: the caller's promise, others
    read and write out of bounds. softcap: above 0, or None for s = logits. Returns loss and lse, (N,) in float32, both
    differentiable in the logits; sums are taken in float32. Raises ValueError when shapes, dtypes or softcap do not
    fit. custom_kernels/README.md has the mathematics.
    """
    _check("softcapped_cross_entropy", logits, targets, softcap)
    loss, lse = _function(softcap, implementation)(logits, targets.astype(mx.int32))
    return loss, lse


def loss_and_gradient(
    logits: mx.array, targets: mx.array, scale: mx.array, softcap: float | None, *, implementation: Language
) -> tuple[mx.array, mx.array]:
    """The loss of `softcapped_cross_entropy` and the gradient of scale * loss, the logits being read once.

    logits, targets, softcap: as there. scale: (N,) of float32. Returns loss (N,) in float32 and d_logits (N, V) in the
    logits' dtype; not differentiable. Raises ValueError when shapes, dtypes or softcap do not fit.
    """
    _check("loss_and_gradient", logits, targets, softcap)
    if scale.shape != targets.shape or scale.dtype != mx.float32:
        raise ValueError(
            f"[loss_and_gradient] expected scale {targets.shape} of float32, got {scale.shape} of {scale.dtype}"
        )
    given = {"logits": logits, "labels": targets.astype(mx.int32), "scale": scale}
    loss, d_logits = _rows("softcapped_cross_entropy_loss_and_gradient", implementation, softcap, given)
    return loss, d_logits


def _check(operation: str, logits: mx.array, targets: mx.array, softcap: float | None) -> None:
    if logits.ndim != 2 or targets.shape != logits.shape[:1] or 0 in logits.shape:
        raise ValueError(
            f"[{operation}] expected logits (N, V), neither of them 0, and targets (N,), "
            f"got {logits.shape} and {targets.shape}"
        )
    check_float(operation, logits.dtype, "logits")
    if not mx.issubdtype(targets.dtype, mx.integer):
        raise ValueError(f"[{operation}] expected targets of integers, got {targets.dtype}")
    if softcap is not None and not 0 < softcap < math.inf:
        raise ValueError(f"[{operation}] softcap must be above 0 or None, got {softcap}")


@lru_cache
def _function(softcap: float | None, implementation: Language) -> Callable[..., Sequence[mx.array]]:
    """(logits, labels) -> [loss, lse]."""

    def vjp(primals: Sequence[mx.array], cotangents: Sequence[mx.array], outputs: Sequence[mx.array]):
        (logits, labels), (d_loss, d_lse), (_, lse) = primals, cotangents, outputs
        given = {"logits": logits, "labels": labels, "lse": lse, "d_loss": d_loss, "d_lse": d_lse}
        (d_logits,) = _rows("softcapped_cross_entropy_backward", implementation, softcap, given)
        return d_logits, mx.zeros_like(labels)

    @with_vjp(vjp)
    def function(logits: mx.array, labels: mx.array) -> Sequence[mx.array]:
        given = {"logits": logits, "labels": labels}
        return _rows("softcapped_cross_entropy_forward", implementation, softcap, given)

    return function


def _rows(
    name: str, implementation: Language, softcap: float | None, inputs: dict[str, mx.array]
) -> Sequence[mx.array]:
    """One launch of a kernel over the rows of (N, V)."""
    N, V = inputs["logits"].shape
    least = -(-SMALL // V)  # rows for SMALL logits: MLX passes fewer in `constant` memory, which kernels do not take
    if least > N:
        inputs = {key: mx.pad(x, [(0, least - N)] + [(0, 0)] * (x.ndim - 1)) for key, x in inputs.items()}
    sizes: dict[str, Any] = {
        "rows": max(N, least),
        "V": V,
        "N": math.gcd(V, 4),
        "softcap": softcap or 0,
        "capped": softcap is not None,
        "dtype": dtype_name(inputs["logits"].dtype),
    }
    outputs = launch(name, implementation, inputs, **sizes)
    return [output[:N] for output in outputs] if least > N else outputs
