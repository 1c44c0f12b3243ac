"""A GPU that speaks Metal: results are zeros, and kernels that do not compile raise when evaluated, as in MLX."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_autoresearch.kernels import launch
from mlx_autoresearch.machine import device

from .errors import COMPILE


def fake_metal(monkeypatch: pytest.MonkeyPatch, broken: Iterable[str], error: str = COMPILE) -> None:
    """In this test custom kernels run on "Metal"; those whose names are in `broken` fail, by default to compile."""
    results: list[mx.array] = []  # of broken kernels, kept so that no other array gets their addresses
    evaluate = mx.eval

    def metal_kernel(name: str, **_: Any) -> Callable[..., list[mx.array]]:
        def call(*, output_shapes: Any, output_dtypes: Any, **_: Any) -> list[mx.array]:
            outputs = [mx.zeros(s, d) for s, d in zip(output_shapes, output_dtypes, strict=True)]
            if name in broken:
                results.extend(outputs)
            return outputs

        return call

    def evaluated(*arrays: Any) -> None:
        wanted = {id(array) for _, array in tree_flatten(arrays)}  # type: ignore[union-attr]
        if wanted & {id(array) for array in results}:
            raise RuntimeError(error)
        evaluate(*arrays)

    monkeypatch.setattr(mx.fast, "metal_kernel", metal_kernel)
    monkeypatch.setattr(mx, "eval", evaluated)
    monkeypatch.setattr(device, "kernel_backend", lambda: "metal")
    launch._launcher.cache_clear()
    launch._built.cache_clear()
