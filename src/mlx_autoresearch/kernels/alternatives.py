"""The implementations of an operation, composed MLX and kernels of ours: what they are given, and one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import mlx.core as mx

from mlx_autoresearch.machine.resident import SMALL, resident

Language = Literal["metal", "cuda", "simulator"]


class UnfitKernel(ValueError):
    """A custom kernel does not take these arrays; says which it takes."""


@dataclass(frozen=True)
class Alternatives:
    """Functions of the same arrays and settings; all give an array, or a tuple of them.

    composed: in plain MLX, called as composed(*arrays, **settings). custom: by kernels of ours, called with
    `language` too. variants: by language, names of other ways in which our kernels may share out the work, for which
    custom is called with `variant` as well: which is fastest depends on the chip. example: makes arrays like the given
    ones, to measure with.
    differentiable: positions of the arrays whose gradients training needs; none: only the forward pass is measured.
    exact: what both are judged by, in float32; None for `composed`. Where MLX's own is approximate it is not that.
    A setting called dtype, where there is one, is the precision of the products.
    """

    name: str
    composed: Callable[..., Any]
    custom: Callable[..., Any]
    differentiable: tuple[int, ...]
    example: Callable[..., tuple[mx.array, ...]]
    exact: Callable[..., Any] | None = None
    variants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def names(self, language: Language) -> list[str]:
        """What `run` takes beside "mlx": the language, for our kernels as they are, and "language variant"."""
        return [language, *(f"{language} {variant}" for variant in self.variants.get(language, ()))]

    def describe(self, arrays: tuple[mx.array, ...], settings: dict) -> str:
        """Name, dtypes, shapes and settings. The batch size is rounded up to a power of two.

        It hardly changes which implementation is faster, and a choice is remembered by this text.
        """
        batch = arrays[0].shape[0]
        rounded = 1 << (batch - 1).bit_length()
        words = [self.name]
        for array in arrays:
            shape = ",".join(str(rounded if i == 0 and n == batch else n) for i, n in enumerate(array.shape))
            words.append(f"{str(array.dtype).removeprefix('mlx.core.')}[{shape}]")
        words += [f"{name}={value}".replace("mlx.core.", "") for name, value in settings.items()]
        return " ".join(words)

    def run(self, chosen: str, arrays: tuple[mx.array, ...], settings: dict) -> Any:
        """The result by one implementation: "mlx", or one of `names`.

        Raises UnfitKernel, a ValueError, when the kernel takes no such arrays.
        """
        if chosen == "mlx":
            return self.composed(*arrays, **settings)
        language, _, variant = chosen.partition(" ")
        if variant:
            settings = settings | {"variant": variant}
        try:
            return self.custom(*arrays, language=language, **settings)
        except ValueError as error:
            raise UnfitKernel(*error.args) from error


def random_like(*arrays: mx.array, **_: object) -> tuple[mx.array, ...]:
    """Standard normal arrays of the same shapes and dtypes, scalars as a step has them: an `example` for floats."""
    keys = mx.random.split(mx.random.key(0), len(arrays))
    drawn = [mx.random.normal(x.shape, key=key).astype(x.dtype) for x, key in zip(arrays, keys, strict=True)]
    return tuple(resident(x) if x.nbytes <= SMALL else x for x in drawn)
