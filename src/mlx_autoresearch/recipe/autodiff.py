"""A typed way to give a function its own gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import mlx.core as mx

P = ParamSpec("P")
R = TypeVar("R")


def with_vjp(vjp: Callable[..., Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function of arrays with `vjp(primals, cotangents, outputs)`, its vector-Jacobian product.

    As `mlx.core.custom_function`: one primal, cotangent or output comes as an array, several as a sequence; the vjp
    returns one gradient for each primal, zeros for those that need none (None would shift the rest).
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        wrapped = mx.custom_function(function)
        wrapped.vjp(vjp)
        return cast(Callable[P, R], wrapped)

    return decorate
