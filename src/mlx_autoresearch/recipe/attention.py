"""Causal attention over a sliding window, with grouped key/value heads: one entry point.

A window of w lets the query at position i see keys i-w ... i (w+1 of them):

    keys      0 1 2 3 4 5
    query 4   . . x x x .     w = 2
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import mlx.core as mx
import numpy as np

from mlx_autoresearch.kernels.operation import Implementation, Language, Operation, random_like
from mlx_autoresearch.machine.device import is_gpu

from . import fastmath
from .autodiff import with_vjp
from .shapes import check_attention

_BLOCK = 128  # queries a block on the CPU: skips most of the causal triangle, keeps matrix products large
_MASKED = -1e30  # finite, so that no row can turn into NaN


def attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    window: int | None = None,
    *,
    implementation: Implementation = "auto",
) -> mx.array:
    """softmax(q kT / sqrt(D)) v, causal, for each head.

    q: (B, T, H, D). k, v: (B, T, H_kv, D) with H a multiple of H_kv; query head h reads key head h // (H / H_kv).
    window: w >= 0 keys before the query's own are visible; None means all of them.
    Returns (B, T, H, D) in q's dtype; scores are summed in float32.
    implementation: see `kernels.operation`. Raises ValueError when shapes or dtypes do not fit, or it cannot run here.
    """
    check_attention("attention", q, k, v, window)
    return _OPERATION(q, k, v, implementation=implementation, window=window)


def composed(q: mx.array, k: mx.array, v: mx.array, window: int | None) -> mx.array:
    """`attention` in plain MLX, by the formulation that suits the default device and the window."""
    T = q.shape[1]
    window = T if window is None else window
    if not is_gpu() and q.dtype == mx.float16:  # whose range ends before the sum of T weighted values, yet undivided
        dtype, q, k, v = q.dtype, q.astype(mx.float32), k.astype(mx.float32), v.astype(mx.float32)
        return _blocked(q, k, v, min(window, T)).astype(dtype)
    if not is_gpu():
        return _blocked(q, k, v, min(window, T))
    if window >= T - 1:
        return fused(q, k, v, "causal")
    if T > 1024 and window <= T // 2:  # on shorter rows one mask is faster (measured on an H200)
        return banded(q, k, v, window)
    return fused(q, k, v, visible(T, T, 0, window))


def _custom(
    q: mx.array, k: mx.array, v: mx.array, *, window: int | None, language: Language, variant: str | None = None
) -> mx.array:
    from .kernels.flash_attention import flash_attention

    return flash_attention(q, k, v, window, implementation=language, variant=variant)[0]


_OPERATION = Operation(
    "attention",
    composed,
    _custom,
    differentiable=(0, 1, 2),
    example=random_like,
    # Whether two simdgroups share keys pays by a GPU's registers; on NVIDIA's they never did (benchmarks/NOTES.md).
    variants={"metal": ("single",)},
)


@lru_cache(maxsize=32)
def visible(queries: int, keys: int, first_query: int, window: int) -> mx.array:
    """(queries, keys) of bool: which keys 0, 1 ... (columns) the queries first_query, ... (rows) may see."""
    distance = first_query + np.arange(queries)[:, None] - np.arange(keys)[None, :]
    return mx.array(np.less_equal(0, distance) & np.less_equal(distance, window))  # type: ignore[arg-type]


def fused(q: mx.array, k: mx.array, v: mx.array, mask: mx.array | str) -> mx.array:
    """MLX's own attention, over (B, T, H, D)."""
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
    out = mx.fast.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5, mask=mask)
    return out.transpose(0, 2, 1, 3)


def banded(q: mx.array, k: mx.array, v: mx.array, window: int) -> mx.array:
    """A window shorter than T in O(T * window) products and memory, by autodiff too.

    The first queries see every key before them. The others come in blocks of L, each against the blocks of keys that
    hold the window + L which its queries see, so that one mask of (L, S) serves them all.
    """
    B, T, H, D = q.shape
    head = max(window, 1)
    L = max(64, -(-window // 2))  # half the window: few keys too many, and large enough products
    blocks, seen = -(-(T - head) // L), -(-window // L) + 1  # of queries; of keys for each

    def in_blocks(x: mx.array, first: int) -> mx.array:
        return x[:, first : first + blocks * L].reshape(B, blocks, L, x.shape[2], D)

    def neighbours(x: mx.array) -> mx.array:  # (B, T, H_kv, D) -> (B * blocks, S, H_kv, D)
        first = head - window
        x = _padded(x, first + (blocks + seen - 1) * L)
        shifted = [in_blocks(x, first + i * L) for i in range(seen)]
        return mx.concatenate(shifted, axis=2).reshape(B * blocks, seen * L, x.shape[2], D)

    queries = in_blocks(_padded(q, head + blocks * L), head).reshape(B * blocks, L, H, D)
    begin = fused(q[:, :head], k[:, :head], v[:, :head], "causal")
    rest = fused(queries, neighbours(k), neighbours(v), visible(L, seen * L, window, window))
    return mx.concatenate([begin, rest.reshape(B, blocks * L, H, D)[:, : T - head]], axis=1)


def _padded(x: mx.array, length: int) -> mx.array:
    """(B, T, H, D) with zeros after the last position."""
    return mx.pad(x, [(0, 0), (0, length - x.shape[1]), (0, 0), (0, 0)])


def _blocked(q: mx.array, k: mx.array, v: mx.array, window: int) -> mx.array:
    """Block by block of queries, against just the tiles of keys that some query of the block can see."""
    B, T, H, D = q.shape
    H_kv = k.shape[2]
    # The heads of a group are more rows of the same products: (B, H_kv, G, T, D).
    q = (q * D**-0.5).transpose(0, 2, 1, 3).reshape(B, H_kv, H // H_kv, T, D)
    k, v = (mx.contiguous(x.transpose(0, 2, 1, 3)) for x in (k, v))  # (B, H_kv, T, D)
    out = _block_attention(window)(q, k, v)[0]
    return out.reshape(B, H, T, D).transpose(0, 2, 1, 3)


@lru_cache
def _block_attention(window: int) -> Callable[..., list[mx.array]]:
    """(q, k, v) -> [out, weights and their sums of every block], differentiable in out.

    With P = exp(S - max) and l its row sums, out = P V / l. For dO' = dO / l the gradients are dV = Pᵀ dO',
    dS = P (dO' Vᵀ - rowsum(dO' out)), dQ = dS K and dK = dSᵀ Q: P is never divided.
    """

    def vjp(primals: list[mx.array], cotangents: list[mx.array], outputs: list[mx.array]) -> tuple[mx.array, ...]:
        q, k, v = primals
        d_out, (out, *kept) = cotangents[0], outputs
        dqs: list[mx.array] = []
        dks: list[list[mx.array]] = [[] for _ in range(0, k.shape[2], _BLOCK)]  # contributions to each tile of keys
        dvs: list[list[mx.array]] = [[] for _ in dks]
        for i, (rows, keys, _mask) in enumerate(_blocks(q.shape[3], q.shape[2], window)):
            weights, total = kept[2 * i], kept[2 * i + 1]
            g = (_rows(d_out, rows).astype(mx.float32) / total).astype(v.dtype)
            delta = fastmath.row_sum((g * _rows(out, rows)).astype(mx.float32))
            d_scores = weights * ((g @ v[:, :, keys].swapaxes(-1, -2)).astype(mx.float32) - delta)
            d_scores, weights = d_scores.astype(q.dtype), weights.astype(v.dtype)
            dqs.append((d_scores @ k[:, :, keys]).reshape(*q.shape[:3], -1, q.shape[-1]))
            dk, dv = d_scores.swapaxes(-1, -2) @ _rows(q, rows), weights.swapaxes(-1, -2) @ g
            for tile, start in enumerate(range(keys.start, keys.stop, _BLOCK), keys.start // _BLOCK):
                here = slice(start - keys.start, start - keys.start + _BLOCK)
                dks[tile].append(dk[:, :, here])
                dvs[tile].append(dv[:, :, here])
        dk, dv = (mx.concatenate([sum(c[1:], c[0]) for c in tiles], axis=2) for tiles in (dks, dvs))
        return mx.concatenate(dqs, axis=3), dk, dv

    @with_vjp(vjp)
    def function(q: mx.array, k: mx.array, v: mx.array) -> list[mx.array]:
        outs, kept = [], []
        for rows, keys, mask in _blocks(q.shape[3], q.shape[2], window):
            scores = (_rows(q, rows) @ k[:, :, keys].swapaxes(-1, -2)).astype(mx.float32) + mask
            weights = fastmath.exp(scores - scores.max(axis=-1, keepdims=True))
            total = fastmath.row_sum(weights)
            out = (weights.astype(v.dtype) @ v[:, :, keys]) / total.astype(v.dtype)
            outs.append(out.reshape(*q.shape[:3], -1, q.shape[-1]))
            kept += [weights, total]
        return [mx.concatenate(outs, axis=3), *kept]

    return function


def _blocks(T: int, G: int, window: int) -> Iterator[tuple[slice, slice, mx.array]]:
    """Rows of each block of queries, the keys it needs in whole tiles, and the mask (G * rows, keys) between them."""
    for start in range(0, T, _BLOCK):
        rows = slice(start, min(start + _BLOCK, T))
        keys = slice(max(0, start - window) // _BLOCK * _BLOCK, rows.stop)
        yield rows, keys, _block_mask(rows.start, rows.stop, keys.start, window, G)


@lru_cache(maxsize=256)
def _block_mask(first_query: int, last_query: int, first_key: int, window: int, G: int) -> mx.array:
    """float32: 0 where a key is visible, a large negative number where it is not; once for each head of a group."""
    distance = np.arange(first_query, last_query)[:, None] - np.arange(first_key, last_query)[None, :]
    mask = np.where((distance >= 0) & (distance <= window), 0.0, _MASKED).astype(np.float32)
    return mx.array(np.tile(mask, (G, 1)))


def _rows(x: mx.array, rows: slice) -> mx.array:
    """(B, H_kv, G, T, D) -> (B, H_kv, G * rows, D)."""
    B, H_kv, _, _, D = x.shape
    return x[:, :, :, rows].reshape(B, H_kv, -1, D)
