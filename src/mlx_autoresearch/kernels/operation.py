"""An operation with two implementations, composed MLX and a custom kernel, and the choice between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, get_args

import mlx.core as mx

from mlx_autoresearch.machine import device

Language = Literal["metal", "cuda", "simulator"]
Implementation = Literal["auto", "mlx", "custom", "metal", "cuda", "simulator"]


class UnfitKernel(ValueError):
    """A custom kernel does not take these arrays; says which it takes."""


_used: ContextVar[dict[str, str] | None] = ContextVar("used", default=None)


@dataclass(frozen=True)
class Operation:
    """Two functions of the same arrays and settings, one of which is called; both give an array, or a tuple of them.

    composed: in plain MLX, called as composed(*arrays, **settings). custom: by kernels of ours, called with
    `language` too. example: makes arrays like the given ones, to measure with.
    differentiable: positions of the arrays whose gradients training needs; none: only the forward pass is measured.
    A setting called dtype, where there is one, is the precision of the products.
    """

    name: str
    composed: Callable[..., Any]
    custom: Callable[..., Any]
    differentiable: tuple[int, ...]
    example: Callable[..., tuple[mx.array, ...]]

    def __call__(self, *arrays: mx.array, implementation: Implementation = "auto", **settings: Any) -> Any:
        """The result by the implementation asked for. Raises ValueError when there is no such one here."""
        chosen = self.choose(arrays, implementation, settings)
        used = _used.get()
        if used is not None:
            used[self.describe(arrays, settings)] = chosen
        return self.run(chosen, arrays, settings)

    def describe(self, arrays: tuple[mx.array, ...], settings: dict) -> str:
        """Name, dtypes, shapes and settings; of the batch only its power of two, which decides little."""
        batch = arrays[0].shape[0]
        rounded = 1 << (batch - 1).bit_length()
        words = [self.name]
        for array in arrays:
            shape = ",".join(str(rounded if i == 0 and n == batch else n) for i, n in enumerate(array.shape))
            words.append(f"{str(array.dtype).removeprefix('mlx.core.')}[{shape}]")
        words += [f"{name}={value}".replace("mlx.core.", "") for name, value in settings.items()]
        return " ".join(words)

    def run(self, chosen: Literal["mlx"] | Language, arrays: tuple[mx.array, ...], settings: dict) -> Any:
        """The result by one implementation. Raises UnfitKernel, a ValueError, when the kernel takes no such arrays."""
        if chosen == "mlx":
            return self.composed(*arrays, **settings)
        try:
            return self.custom(*arrays, language=chosen, **settings)
        except ValueError as error:
            raise UnfitKernel(*error.args) from error

    def choose(
        self, arrays: tuple[mx.array, ...], implementation: Implementation, settings: dict
    ) -> Literal["mlx"] | Language:
        """What `implementation` means here and for these shapes."""
        here = device.kernel_backend()
        if implementation == "auto" and here is not None:
            from .tuning import fastest

            return fastest(self, arrays, settings, here)
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


def random_like(*arrays: mx.array, **_: object) -> tuple[mx.array, ...]:
    """Standard normal arrays of the same shapes and dtypes: an `example` for floats."""
    keys = mx.random.split(mx.random.key(0), len(arrays))
    return tuple(mx.random.normal(x.shape, key=key).astype(x.dtype) for x, key in zip(arrays, keys, strict=True))


def resolved(implementation: Implementation) -> Implementation:
    """ "custom" as what runs custom kernels here: the GPU's language, or the simulator; others as they are."""
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
