"""Rows of a table for token ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import mlx.core as mx

from mlx_autoresearch.kernels.operation import Implementation, Language, Operation

from .autodiff import with_vjp


def embedding(ids: mx.array, weight: mx.array, dtype: mx.Dtype, *, implementation: Implementation = "auto") -> mx.array:
    """weight[ids] in `dtype`.

    ids: (B, T) of integers in 0 ... V-1. weight: (V, C) in float32, in which its gradient is summed too. Returns
    (B, T, C). implementation: see `kernels.operation`; custom kernels sum the gradient in a fixed order, MLX on a GPU
    in any. Raises ValueError when shapes do not fit, or it cannot run here.
    """
    if ids.ndim != 2 or weight.ndim != 2:
        raise ValueError(f"[embedding] expected ids (B, T) and weight (V, C), got {ids.shape} and {weight.shape}")
    return _OPERATION(ids, weight, implementation=implementation, dtype=dtype)


@lru_cache
def _lookup(dtype: mx.Dtype) -> Callable[[mx.array, mx.array], mx.array]:
    def vjp(primals: Sequence[mx.array], d: mx.array, _: mx.array) -> tuple[mx.array, mx.array]:
        ids, weight = primals
        return mx.zeros_like(ids), mx.zeros_like(weight).at[ids].add(d.astype(weight.dtype))

    @with_vjp(vjp)
    def function(ids: mx.array, weight: mx.array) -> mx.array:
        # The smaller of the two is rounded.
        return weight.astype(dtype)[ids] if weight.shape[0] < ids.size else weight[ids].astype(dtype)

    return function


def _custom(ids: mx.array, weight: mx.array, *, dtype: mx.Dtype, language: Language) -> mx.array:
    from .kernels.embedding import embedding

    return embedding(ids, weight, dtype, implementation=language)


def _example(ids: mx.array, weight: mx.array, **_: object) -> tuple[mx.array, mx.array]:
    """Tokens as frequent as words are: of rank k in proportion to 1 / k."""
    keys = mx.random.split(mx.random.key(0), 2)
    ranks = float(weight.shape[0]) ** mx.random.uniform(shape=ids.shape, key=keys[0])
    return (ranks - 1).astype(ids.dtype), mx.random.normal(weight.shape, key=keys[1]).astype(weight.dtype)


_OPERATION = Operation(
    "embedding",
    lambda ids, weight, dtype: _lookup(dtype)(ids, weight),
    _custom,
    differentiable=(1,),
    example=_example,
)
