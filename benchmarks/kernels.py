"""Our kernels beside compiled MLX, in one run: milliseconds, share of copy bandwidth, peak memory.

    python benchmarks/kernels.py [rows attention newton_schulz]     needs a GPU: Metal or CUDA

A row-wise kernel can do no better than move every tensor once, so it is compared with a copy, measured beside it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import mlx_autoresearch  # before mlx.core, which it prepares

# isort: split
import mlx.core as mx

from mlx_autoresearch.machine import device
from mlx_autoresearch.recipe.attention import attention
from mlx_autoresearch.recipe.embedding import embedding
from mlx_autoresearch.recipe.kernels.cross_entropy import loss_and_gradient
from mlx_autoresearch.recipe.loss import softcapped
from mlx_autoresearch.recipe.muon import newton_schulz
from mlx_autoresearch.recipe.norm import mixed_norm, residual_norm
from mlx_autoresearch.recipe.rotary import norm_rope, rope


def normal(*shape: int, dtype: mx.Dtype = mx.bfloat16) -> mx.array:
    x = mx.random.normal(shape).astype(dtype)
    mx.eval(x)
    return x


def milliseconds(call: Callable[[], object], calls: int = 10) -> float:
    """The best of several rounds of `calls` calls that are queued at once."""
    mx.eval(call())
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        mx.eval([call() for _ in range(calls)])
        best = min(best, (time.perf_counter() - start) / calls)
    return 1000 * best


def peak_mb(call: Callable[[], object]) -> float:
    """MiB beyond what was there before."""
    mx.eval(call())
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(call())
    return (mx.get_peak_memory() - before) / 2**20


def backward(function: Callable[..., Any], *arrays: mx.array) -> Callable[[], object]:
    """A compiled call for the gradients in all arrays alone, as far as they do not need the results."""

    def results(*xs: mx.array) -> list[mx.array]:
        out = function(*xs)
        return list(out) if isinstance(out, tuple) else [out]

    cotangents = [normal(*out.shape, dtype=out.dtype) for out in results(*arrays)]
    compiled = mx.compile(lambda *xs: mx.vjp(results, xs, cotangents)[1])
    return lambda: compiled(*arrays)


def copy(x: mx.array) -> Callable[[], object]:
    """A compiled call that reads x once and writes as much."""
    add = mx.compile(lambda x: x + 1)
    return lambda: add(x)


def line(name: str, mlx: Callable[[], object], kernel: Callable[[], object], x: mx.array, moved: float) -> None:
    """Both sides, and the kernel's bandwidth for `moved` tensors of x's size as a share of that of a copy of x."""
    composed, ours, copied = (milliseconds(call) for call in (mlx, kernel, copy(x)))
    share = moved / 2 * copied / ours  # a copy moves two tensors
    print(f"{name:<46} {composed:8.3f} {ours:9.3f} {copied:8.3f} {share:8.0%}", flush=True)


def rows(kernels: str) -> None:
    """Operations bound by memory; the last column counts every tensor once."""
    print(f"{'operation':<46} {'MLX ms':>8} {'kernel ms':>9} {'copy ms':>8} {'of copy':>8}")
    rotary(kernels)
    residual(kernels)
    embeddings(kernels)
    losses(kernels)


def rotary(kernels: str) -> None:
    """RoPE, alone and after the norm."""
    for shape in ((128, 2048, 4, 128), (32, 2048, 4, 128), (32, 2048, 8, 64), (16, 512, 2, 128)):
        x = normal(*shape)
        for operation in (norm_rope, rope):
            name = f"{operation.__name__} {'x'.join(map(str, shape))} bf16"
            both = [partial(operation, implementation=which) for which in ("mlx", kernels)]
            forwards = [mx.compile(f) for f in both]
            line(f"{name} forward", *(partial(f, x) for f in forwards), x, 2)
            # The norm's gradient reads x again.
            line(f"{name} backward", *(backward(f, x) for f in both), x, 3 if operation is norm_rope else 2)


def residual(kernels: str) -> None:
    """What a residual stream adds up, and its norm."""
    for shape in ((32, 2048, 512), (16, 512, 256)):
        x, y, a, b = normal(*shape), normal(*shape), normal(1), normal(1)
        for operation, arrays, moved in ((residual_norm, (x, y), 4), (mixed_norm, (x, y, a, b), 6)):
            name = f"{operation.__name__} {'x'.join(map(str, shape))} bf16"
            both = [partial(operation, implementation=which) for which in ("mlx", kernels)]
            line(f"{name} forward", *(partial(mx.compile(f), *arrays) for f in both), x, 4)
            line(f"{name} backward", *(backward(f, *arrays) for f in both), x, moved)


def embeddings(kernels: str) -> None:
    """Looking up tokens as frequent as words are; the gradient's kernel includes sorting them."""
    for B, T, V, C in ((32, 2048, 8192, 512), (16, 512, 4096, 256)):
        ids = (float(V) ** mx.random.uniform(shape=(B, T)) - 1).astype(mx.int32)
        weight, x = normal(V, C, dtype=mx.float32), normal(B, T, C)
        mx.eval(ids)
        name, moved = f"embedding {B}x{T} of {V}x{C} bf16", 1 + weight.nbytes / x.nbytes
        both = [partial(embedding, ids, dtype=mx.bfloat16, implementation=which) for which in ("mlx", kernels)]
        line(f"{name} forward", *(partial(mx.compile(f), weight) for f in both), x, moved)
        line(f"{name} backward", *(backward(f, weight) for f in both), x, moved)


def losses(kernels: str) -> None:
    """The softcapped loss with its gradient."""
    for N, V in ((32768, 8192), (8192, 4096), (4096, 50257)):
        logits, labels, scale = normal(N, V), mx.random.randint(0, V, (N,)), mx.full((N,), 1 / N)
        mx.eval(labels, scale)

        def composed(z: mx.array, y: mx.array = labels, scale: mx.array = scale) -> mx.array:
            s = softcapped(z, 15.0)
            return (scale * (mx.logsumexp(s, axis=-1) - mx.take_along_axis(s, y[:, None], axis=-1)[:, 0])).sum()

        both = mx.compile(mx.value_and_grad(composed))
        ours = partial(loss_and_gradient, logits, labels, scale, 15.0, implementation=kernels)
        line(f"softcapped loss and gradient {N}x{V} bf16", partial(both, logits), ours, logits, 2)


def attentions(kernels: str) -> None:
    """Forward and backward, time and memory."""
    print(
        f"{'attention forward and backward, bf16':<46} {'MLX ms':>8} {'kernel ms':>9} {'MLX MiB':>9} {'kernel MiB':>10}"
    )
    for B, T, H, H_kv, D, window in (
        (32, 2048, 4, 4, 128, None),
        (32, 2048, 4, 4, 128, 1024),
        (32, 2048, 4, 4, 128, 256),
        (16, 512, 2, 2, 128, 256),
        (16, 2048, 8, 2, 64, 256),
        (1, 4096, 4, 4, 128, 1024),
        (1, 8192, 4, 4, 128, 1024),
        (1, 16384, 4, 4, 128, 1024),
    ):
        q, k, v = normal(B, T, H, D), normal(B, T, H_kv, D), normal(B, T, H_kv, D)
        cells = []
        for which in ("mlx", kernels):
            call = backward(partial(attention, window=window, implementation=which), q, k, v)
            cells.append((milliseconds(call, 3), peak_mb(call)))
        (mlx, mlx_peak), (ours, peak) = cells
        name = f"B {B} T {T} heads {H}/{H_kv} D {D} window {window}"
        print(f"{name:<46} {mlx:8.2f} {ours:9.2f} {mlx_peak:9,.0f} {peak:10,.0f}", flush=True)


def masked(kernels: str) -> None:
    """Peak memory against the (T, T) mask that a window needs where there is no kernel and no banded formulation."""
    print(f"{'peak MiB, window 1024, heads 4, D 128, bf16':<46} {'mask':>9} {'kernel':>9}")
    for T in (2048, 4096, 8192, 16384):
        q, k, v = normal(1, T, 4, 128), normal(1, T, 4, 128), normal(1, T, 4, 128)

        def with_mask(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
            i = mx.arange(q.shape[1])
            distance = i[:, None] - i[None, :]
            heads = [x.swapaxes(1, 2) for x in (q, k, v)]
            mask = (distance >= 0) & (distance <= 1024)
            return mx.fast.scaled_dot_product_attention(*heads, scale=128**-0.5, mask=mask).swapaxes(1, 2)

        ours = partial(attention, window=1024, implementation=kernels)
        peaks = [peak_mb(backward(f, q, k, v)) for f in (with_mask, ours)]
        print(f"T {T:<44} {peaks[0]:9,.0f} {peaks[1]:9,.0f}", flush=True)


def newton_schulzes(kernels: str) -> None:
    """Five iterations on a batch of matrices."""
    print(f"{'newton_schulz, 5 steps':<46} {'MLX ms':>8} {'kernel ms':>9}")
    for shape, dtype in (((32, 512, 512), mx.bfloat16), ((8, 512, 2048), mx.bfloat16), ((8, 256, 256), mx.float32)):
        g = normal(*shape, dtype=mx.float32)
        five = partial(newton_schulz, steps=5, dtype=dtype)
        both = [mx.compile(partial(five, implementation=which)) for which in ("mlx", kernels)]
        mlx, ours = (milliseconds(partial(f, g), 3) for f in both)
        name = f"{'x'.join(map(str, shape))} {str(dtype).removeprefix('mlx.core.')}"
        print(f"{name:<46} {mlx:8.3f} {ours:9.3f}", flush=True)


SECTIONS = {"rows": rows, "attention": attentions, "memory": masked, "newton_schulz": newton_schulzes}


def main() -> None:
    kernels = device.kernel_backend()
    if kernels is None:
        sys.exit("benchmarks/kernels.py needs a GPU: on a CPU custom kernels only run in the simulator")
    print(f"{device.device_name()}, mlx {mx.__version__}, mlx_autoresearch {mlx_autoresearch.__version__}")
    for name in sys.argv[1:] or SECTIONS:
        mx.random.seed(0)
        SECTIONS[name](kernels)


if __name__ == "__main__":
    main()
