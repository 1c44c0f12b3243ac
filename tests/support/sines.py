"""RoPE as Metal composes it: its fast sines and cosines may be wrong by 2**-13, as its specification says."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_autoresearch.recipe import fastmath

ERROR = 2.0**-13


def fast_sines(monkeypatch: pytest.MonkeyPatch) -> None:
    """`mx.fast.rope`, taken on a CPU too, turns by sines and cosines that are wrong by up to ERROR, here and there."""
    monkeypatch.setattr(fastmath, "float32_on_cpu", lambda x: False)
    monkeypatch.setattr(mx.fast, "rope", _rope)


def _rope(x: mx.array, dims: int, *, traditional: bool, base: float, scale: float, offset: int) -> Any:
    assert not traditional and offset == 0
    half, T = dims // 2, x.shape[-2]
    angle = scale * np.arange(T)[:, None] * base ** (-np.arange(half) / half)
    rough = ERROR * np.sin(1000 * angle + np.arange(half))  # of any sign, at every position another
    cos, sin = (mx.array((f(angle) + rough).astype(np.float32)) for f in (np.cos, np.sin))
    a, b = x[..., :half], x[..., half:]
    return mx.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1).astype(x.dtype)
