"""An operation of the model, called with the implementation asked for; choice.py chooses for "auto"."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, get_args

import mlx.core as mx

from mlx_autoresearch.machine import device

from .alternatives import Alternatives, Language, UnfitKernel, random_like
from .choice import chosen_for, measuring

__all__ = [
    "Implementation",
    "Language",
    "Operation",
    "UnfitKernel",
    "measuring",
    "random_like",
    "recording",
    "resolved",
]

Implementation = Literal["auto", "mlx", "custom", "metal", "cuda", "simulator"]

_used: ContextVar[dict[str, str] | None] = ContextVar("used", default=None)


class Operation(Alternatives):
    """Several implementations, one of which is called."""

    def __call__(self, *arrays: mx.array, implementation: Implementation = "auto", **settings: Any) -> Any:
        """The result by the implementation asked for.

        "auto" takes the one that is remembered for these shapes on this machine. Inside `measuring()` a shape that is
        not known is measured first; elsewhere it is composed of MLX. Raises ValueError when there is no such
        implementation here.
        """
        chosen = self.choose(arrays, implementation, settings)
        used = _used.get()
        if used is not None:
            used[self.describe(arrays, settings)] = chosen
        return self.run(chosen, arrays, settings)

    def choose(self, arrays: tuple[mx.array, ...], implementation: Implementation, settings: dict) -> str:
        """What `implementation` means here and for these shapes, as `run` takes it."""
        here = device.kernel_backend()
        if implementation == "auto" and here is not None:
            return chosen_for(self, arrays, settings, here)
        match resolved(implementation):
            case "auto" | "mlx":  # on a CPU custom kernels only run in the simulator
                return "mlx"
            case "simulator":
                return "simulator"
            case "metal" | "cuda" as language if language == here:
                return language
            case "metal" | "cuda":
                raise ValueError(f"[{self.name}] implementation {implementation!r} is not available on this device")
        expected = ", ".join(get_args(Implementation))
        raise ValueError(f"[{self.name}] implementation must be one of {expected}, got {implementation!r}")


def resolved(implementation: Implementation) -> Implementation:
    """Replace "custom" by what runs custom kernels here: "metal", "cuda" or "simulator"; return others unchanged."""
    return device.kernel_backend() or "simulator" if implementation == "custom" else implementation


@contextmanager
def recording() -> Iterator[dict[str, str]]:
    """Collects what the operations called inside use: description -> "mlx", "metal", "cuda" or "simulator"."""
    used: dict[str, str] = {}
    token = _used.set(used)
    try:
        yield used
    finally:
        _used.reset(token)
