"""What several tests share: distances, fixtures, small models."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

PARITY_DIR = Path(os.environ.get("PARITY_DIR", Path(__file__).parents[1] / "parity"))


def relative_error(got: Any, expected: Any) -> float:
    """||got - expected|| / ||expected|| in float64; infinite when a NaN is about."""
    got, expected = (np.array(a, dtype=np.float64) for a in (got, expected))
    assert got.shape == expected.shape, f"shapes {got.shape} and {expected.shape}"
    error = np.linalg.norm(got - expected) / max(np.linalg.norm(expected), 1e-30)
    return float(error) if np.isfinite(error) else float("inf")


def parity_files(key: str) -> list[Path]:
    """The fixtures in PARITY_DIR that hold `key`."""
    files = sorted(PARITY_DIR.glob("*.npz"))
    assert files, f"no fixtures in {PARITY_DIR}"
    return [f for f in files if key in np.load(f).files]


def load_parity(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A fixture's meta data and its arrays."""
    with np.load(path) as z:
        arrays = {k: z[k] for k in z.files}
    return json.loads(str(arrays.pop("meta"))), arrays


def prefixed(arrays: dict[str, np.ndarray], prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays under `prefix/`, without it."""
    return ((k.removeprefix(prefix + "/"), v) for k, v in arrays.items() if k.startswith(prefix + "/"))


def normal(shape: tuple[int, ...], seed: int, scale: float = 1.0) -> mx.array:
    """Standard normal float32 numbers times `scale`, the same on every machine."""
    return mx.array((np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32))
