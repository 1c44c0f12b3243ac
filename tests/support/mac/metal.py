"""A GPU that speaks Metal: results are zeros, and kernels that do not compile raise when evaluated, as in MLX."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_autoresearch.kernels import launch
from mlx_autoresearch.machine import device

from .errors import COMPILE, too_many_threads


def fake_metal(
    monkeypatch: pytest.MonkeyPatch,
    broken: Iterable[str],
    error: str = COMPILE,
    most_threads: Callable[[str, dict[str, Any]], int] = lambda name, template: 1024,
) -> list[tuple[str, int]]:
    """In this test custom kernels run on "Metal"; those whose names are in `broken` fail, by default to compile.

    most_threads: how many threads a threadgroup of a kernel with a template may have; a launch of more fails, too.
    Returns a list to which every launch adds its name and threads.
    """
    results: list[
        tuple[mx.array, Exception]
    ] = []  # of broken kernels, kept so that no other array gets their addresses
    launched: list[tuple[str, int]] = []
    evaluate = mx.eval

    def metal_kernel(name: str, **_: Any) -> Callable[..., list[mx.array]]:
        def call(
            *, output_shapes: Any, output_dtypes: Any, threadgroup: Any, template: Any, **_: Any
        ) -> list[mx.array]:
            outputs = [mx.zeros(s, d) for s, d in zip(output_shapes, output_dtypes, strict=True)]
            threads, most = math.prod(threadgroup), most_threads(name, dict(template))
            launched.append((name, threads))
            if name in broken:
                results.extend((output, RuntimeError(error)) for output in outputs)
            elif threads > most:
                results.extend((output, ValueError(too_many_threads(threads, most))) for output in outputs)
            return outputs

        return call

    def evaluated(*arrays: Any) -> None:
        wanted = {id(array) for _, array in tree_flatten(arrays)}  # type: ignore[union-attr]
        for array, failure in results:
            if id(array) in wanted:
                raise failure
        evaluate(*arrays)

    monkeypatch.setattr(mx.fast, "metal_kernel", metal_kernel)
    monkeypatch.setattr(mx, "eval", evaluated)
    monkeypatch.setattr(device, "kernel_backend", lambda: "metal")
    launch._launcher.cache_clear()
    launch._built.cache_clear()
    launch._threads_on_metal.cache_clear()
    return launched
