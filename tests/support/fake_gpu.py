"""A machine whose GPU speaks CUDA, as far as the choice between implementations is concerned; nothing measured yet."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import pytest

from mlx_autoresearch.kernels import tuning
from mlx_autoresearch.kernels.operation import Operation
from mlx_autoresearch.machine import device


def fake_gpu(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """`auto` chooses and computes as on a GPU, measures as briefly as it can, and remembers in the folder `cache`."""
    monkeypatch.setattr(device, "kernel_backend", lambda: "cuda")
    monkeypatch.setattr(device, "default_compute_dtype", lambda: mx.bfloat16)
    monkeypatch.setattr(tuning, "SECONDS", 0.0)
    monkeypatch.setenv("MLX_AUTORESEARCH_CACHE", str(cache))


def compose_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run composed MLX where a kernel is chosen: there is no GPU here."""

    def run(self: Operation, chosen: str, arrays: tuple[mx.array, ...], settings: dict) -> mx.array:
        return self.composed(*arrays, **settings)

    monkeypatch.setattr(Operation, "run", run)
