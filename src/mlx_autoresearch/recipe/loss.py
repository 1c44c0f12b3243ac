"""Cross-entropy of softcapped logits, multiplied out of the unembedding chunk by chunk.

With z = x Wᵀ, t = tanh(z / c) and s = c t the loss of a token y is log sum_v e^(s_v) - s_y. Its gradient with
respect to z is (softmax(s) - onehot(y)) (1 - t²), so one visit to a chunk of logits yields both the loss and its
gradients, and the full logits never exist.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import mlx.core as mx

from mlx_autoresearch.kernels.operation import Implementation, Language, Operation
from mlx_autoresearch.machine.device import is_gpu
from mlx_autoresearch.machine.resident import resident

from . import fastmath
from .autodiff import with_vjp


def _chunk_elements() -> int:
    """Logits a chunk: 32 MiB of float32 on a CPU; a GPU needs larger products to be busy, 256 MiB of bfloat16."""
    return 2**27 if is_gpu() else 2**23


def linear_cross_entropy(
    x: mx.array,
    weight: mx.array,
    targets: mx.array,
    softcap: float | None,
    ignore_index: int = -1,
    *,
    loss_scale: mx.array | None = None,
    implementation: Implementation = "auto",
) -> mx.array:
    """Mean cross-entropy in nats of softcap * tanh(x Wᵀ / softcap) against targets.

    x: (N, C). weight: (V, C), cast to x's dtype for the products. targets: (N,) of int; `ignore_index` is left out
    of the mean. softcap: None leaves the logits as they are. Returns a float32 scalar, differentiable in x and weight;
    softmax and loss are computed in float32. loss_scale: a float32 scalar that multiplies the gradients, not the loss,
    before they are rounded to x's dtype; None for 1. implementation: see `kernels.operation`. Raises ValueError when
    shapes do not fit, or the implementation cannot run here.
    """
    if x.ndim != 2 or weight.ndim != 2 or targets.shape != x.shape[:1] or weight.shape[1] != x.shape[1]:
        raise ValueError(
            f"[linear_cross_entropy] expected x (N, C), weight (V, C), targets (N,), "
            f"got {x.shape}, {weight.shape}, {targets.shape}"
        )
    keep = (targets != ignore_index).astype(mx.float32)
    scale = keep / mx.maximum(keep.sum(), 1.0)
    labels = mx.where(targets == ignore_index, 0, targets)
    if loss_scale is None:
        return _OPERATION(x, weight, labels, scale, implementation=implementation, softcap=softcap)
    scaled = _OPERATION(x, weight, labels, scale * loss_scale, implementation=implementation, softcap=softcap)
    return value_unscaled(scaled, loss_scale)


def _keep_gradient(primals: Sequence[mx.array], d: mx.array, _: mx.array) -> tuple[mx.array, mx.array]:
    return d, mx.zeros_like(primals[1])


@with_vjp(_keep_gradient)
def value_unscaled(loss: mx.array, scale: mx.array) -> mx.array:
    """A loss that was multiplied by `scale`, as it was before; its gradients stay multiplied."""
    return loss / scale


def softcapped(logits: mx.array, softcap: float | None) -> mx.array:
    """softcap * tanh(logits / softcap) in float32; the logits in float32 when softcap is None."""
    logits = logits.astype(mx.float32)
    return logits if softcap is None else softcap * fastmath.tanh(logits * (1 / softcap))


def _loss_and_gradients_vjp(primals, cotangents, outputs):
    _x, _weight, labels, scale = primals
    g, (_, dx, dw) = resident(cotangents[0]), outputs
    return g.astype(dx.dtype) * dx, g * dw, mx.zeros_like(labels), mx.zeros_like(scale)


@lru_cache
def _loss_and_gradients(softcap: float | None) -> Callable[..., tuple[mx.array, mx.array, mx.array]]:
    """A function (x, W, y, scale) -> (sum of scale * loss, dx, dW), differentiable in the first, for free."""

    @with_vjp(_loss_and_gradients_vjp)
    def function(x: mx.array, weight: mx.array, labels: mx.array, scale: mx.array):
        N, V = x.shape[0], weight.shape[0]
        rows = max(1, min(N, _chunk_elements() // V))
        w = weight.astype(x.dtype)
        losses, dxs, label_terms = [], [], []
        dw_t = None  # (C, V): this way round the product over tokens is a fifth faster in MKL
        for i in range(0, N, rows):
            xc, yc, sc = x[i : i + rows], labels[i : i + rows, None], scale[i : i + rows, None]
            loss, dlogits, dlabel = _chunk(xc @ w.T, yc, sc, softcap)
            dlogits, dlabel = dlogits.astype(x.dtype), dlabel.astype(x.dtype)
            losses.append((loss * sc).sum())
            # The one-hot term touches one row of W per token: gather and scatter it instead of editing the logits.
            dxs.append(dlogits @ w - dlabel * w[yc[:, 0]])
            label_terms.append(dlabel * xc)
            chunk = (xc.T @ dlogits).astype(mx.float32)
            dw_t = chunk if dw_t is None else dw_t + chunk
        assert dw_t is not None
        dw = dw_t.T.at[labels].subtract(mx.concatenate(label_terms).astype(mx.float32))
        return mx.stack(losses).sum(), mx.concatenate(dxs), dw.astype(weight.dtype)

    return function


@lru_cache
def _custom_loss_and_gradients(
    softcap: float | None, language: Language
) -> Callable[..., tuple[mx.array, mx.array, mx.array]]:
    """`_loss_and_gradients` by our kernel: one read of a chunk of logits gives its losses and its whole gradient."""
    from .kernels.cross_entropy import loss_and_gradient

    @with_vjp(_loss_and_gradients_vjp)
    def function(x: mx.array, weight: mx.array, labels: mx.array, scale: mx.array):
        N, V = x.shape[0], weight.shape[0]
        rows = max(1, min(N, _chunk_elements() // V))
        w = weight.astype(x.dtype)
        losses, dxs, dw = [], [], mx.zeros(weight.shape)
        for i in range(0, N, rows):
            xc, yc, sc = x[i : i + rows], labels[i : i + rows], scale[i : i + rows]
            loss, dlogits = loss_and_gradient(xc @ w.T, yc, sc, softcap, implementation=language)
            losses.append((loss * sc).sum())
            dxs.append(dlogits @ w)
            dw = dw + (dlogits.T @ xc).astype(mx.float32)
        return mx.stack(losses).sum(), mx.concatenate(dxs), dw.astype(weight.dtype)

    return function


def _example(x: mx.array, weight: mx.array, labels: mx.array, scale: mx.array, **_: object) -> tuple[mx.array, ...]:
    """Logits of standard deviation 1, as early in training."""
    keys = mx.random.split(mx.random.key(0), 3)
    return (
        mx.random.normal(x.shape, key=keys[0]).astype(x.dtype),
        (mx.random.normal(weight.shape, key=keys[1]) * x.shape[1] ** -0.5).astype(weight.dtype),
        mx.random.randint(0, weight.shape[0], labels.shape, key=keys[2]).astype(labels.dtype),
        mx.full(scale.shape, 1 / scale.size),
    )


_OPERATION = Operation(
    "linear_cross_entropy",
    lambda *arrays, softcap: _loss_and_gradients(softcap)(*arrays)[0],
    lambda *arrays, softcap, language: _custom_loss_and_gradients(softcap, language)(*arrays)[0],
    differentiable=(0, 1),
    example=_example,
)


def _chunk(logits: mx.array, labels: mx.array, scale: mx.array, softcap: float | None):
    """Per-token loss (R, 1), gradient of scale * loss in the logits but for the label's own term, and that term."""
    z = logits.astype(mx.float32)
    at_label = softcapped(mx.take_along_axis(z, labels, axis=-1), softcap)
    if softcap is None:
        top = z.max(axis=-1, keepdims=True)
        e = fastmath.exp(z - top)
        total = fastmath.row_sum(e)
        return mx.log(total) + top - at_label, e * (scale / total), scale
    t = fastmath.tanh(z * (1 / softcap))
    e = fastmath.exp(softcap * t - softcap)  # s <= softcap, so no maximum is needed
    total = fastmath.row_sum(e)
    loss = mx.log(total) + softcap - at_label
    return loss, e * (1 - t * t) * (scale / total), scale * (1 - mx.square(at_label * (1 / softcap)))
