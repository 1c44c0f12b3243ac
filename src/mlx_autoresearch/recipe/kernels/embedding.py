"""Token embedding by hand-written kernels: no float32 copy of what is looked up, sums in a fixed order."""

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


def embedding(ids: mx.array, weight: mx.array, dtype: mx.Dtype, *, implementation: Language) -> mx.array:
    """weight[ids] in `dtype`; the gradient in weight is summed in float32, in an order that only `ids` decides.

    ids: (...,) of integers in 0 ... V-1: the caller's promise, others read out of bounds. weight: (V, C) in float32.
    dtype: float32, float16 or bfloat16. Returns (..., C). Raises ValueError when shapes or dtypes do not fit, or
    there are fewer than 8 elements to read or to write.
    """
    if weight.ndim != 2 or weight.dtype != mx.float32:
        raise ValueError(f"[embedding] expected weight (V, C) in float32, got {weight.shape} of {weight.dtype}")
    if ids.ndim == 0 or not mx.issubdtype(ids.dtype, mx.integer):
        raise ValueError(f"[embedding] expected ids (...,) of integers, got {ids.shape} of {ids.dtype}")
    check_float("embedding", dtype)
    if min(weight.size, ids.size * weight.shape[1]) < SMALL:
        raise ValueError(
            f"[embedding] expected at least {SMALL} elements, got ids {ids.shape} and weight {weight.shape}"
        )
    rows = _function(dtype, implementation)(ids.reshape(-1).astype(mx.int32), weight)
    return rows.reshape(*ids.shape, weight.shape[1])


@lru_cache
def _function(dtype: mx.Dtype, implementation: Language) -> Callable[[mx.array, mx.array], mx.array]:
    """(ids (N,), weight) -> (N, C)."""

    def sizes(ids: mx.array, weight: mx.array) -> dict[str, Any]:
        V, C = weight.shape
        return {"rows": ids.size, "V": V, "C": C, "N": math.gcd(C, 4), "dtype": dtype_name(dtype)}

    def vjp(primals: Sequence[mx.array], dy: mx.array, _: mx.array) -> tuple[mx.array, mx.array]:
        ids, weight = primals
        V = weight.shape[0]
        given = {  # but for dy the same for every table of a batch: `mx.compile` sorts and counts once
            "order": mx.argsort(ids),  # the places of token 0, then those of token 1, ...
            "ends": mx.cumsum(mx.zeros((V,), mx.int32).at[ids].add(1)),
            "dy": dy,
        }
        (d_weight,) = launch("embedding_backward", implementation, given, **sizes(ids, weight))
        return mx.zeros_like(ids), d_weight

    @with_vjp(vjp)
    def function(ids: mx.array, weight: mx.array) -> mx.array:
        return launch("embedding_forward", implementation, {"ids": ids, "weight": weight}, **sizes(ids, weight))[0]

    return function
