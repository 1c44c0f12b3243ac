"""A kernel and its YAML: how to call it at given sizes, and at which sizes to verify it."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.plain_text import one_line
from mlx_autoresearch.simulator import Kernel
from mlx_autoresearch.simulator.arrays import dtype_name

from .expressions import evaluate

Expression = int | float | str
Sizes = dict[str, Any]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputDescription(_Strict):
    """An input: either a shape filled with random values, or the values themselves."""

    dtype: str
    shape: list[Expression] | None = None
    value: list[Expression] | None = None
    values: Literal["normal", "uniform", "symmetric", "ascending"] = "normal"
    scale: Expression = 1
    offset: Expression = 0  # added to what was scaled
    masked: Expression = 0  # so much of it, from 0 to 1, is -inf
    low: int = 0  # of integers, which "ascending" sorts
    high: Expression = 100
    min_elements: int = 0  # 8: the caller guarantees that MLX passes it as `device`


class OutputDescription(_Strict):
    """One output: its dtype, and its shape in the sizes of a case."""

    dtype: str
    shape: list[Expression]
    tolerance: float | None = None  # its own, instead of the kernel's


class NativeDescription(_Strict):
    """CUDA's own source for one architecture, name.<architecture>.cu: for which sizes, and how it is launched.

    Inputs, outputs, template, definition and cases are those of the Metal source.
    """

    when: dict[str, list[Any]]  # the sizes that must have one of these values
    grid: list[Expression]
    threadgroup: list[Expression]
    shared_memory: Expression  # bytes, beside what the source declares itself
    cases: list[Sizes] = []  # to verify it on, beside the kernel's: larger than a simulation would bear


class Description(_Strict):
    """The YAML beside a kernel. Every expression is arithmetic on the sizes of a case."""

    inputs: dict[str, InputDescription]
    outputs: dict[str, OutputDescription] = Field(min_length=1)
    grid: list[Expression]
    threadgroup: list[Expression]
    cases: list[Sizes] = Field(min_length=1)
    template: dict[str, Expression | bool] = {}
    defaults: Sizes = {}
    derived: dict[str, Expression] = {}
    choices: dict[str, list[int | str | bool]] = {}  # all that a size may be, where only some values are allowed
    random: dict[str, Any] = {}
    tolerance: float | dict[str, float] = {}
    init_value: float | None = None
    atomic_outputs: bool = False
    definition: str | None = None
    cuda: dict[str, NativeDescription] = {}  # by architecture, as "sm_90"
    unreachable: dict[str, str] = {}  # what no case can reach (coverage.py), and why


@dataclass(frozen=True)
class Launch:
    """The arguments of one call of `mx.fast.metal_kernel` but for its inputs: dtypes by name."""

    output_shapes: list[tuple[int, ...]]
    output_dtypes: list[str]
    template: list[tuple[str, Any]]
    grid: tuple[int, ...]
    threadgroup: tuple[int, ...]
    init_value: float | None


@dataclass(frozen=True)
class NativeLaunch:
    """A launch of CUDA's own source in the place of what the Metal source is translated to."""

    kernel: Kernel
    launch: Launch
    shared_memory: int  # bytes


@dataclass(frozen=True)
class Call(Launch):
    """A launch with inputs, as (dtype, float32 or integers)."""

    inputs: dict[str, tuple[str, np.ndarray]]


_MOST_SHARED = 227 * 1024  # bytes of shared memory that a block can have, up to compute capability 12.0
_MOST_ELEMENTS = 2**28  # of an array that is drawn: 2 GiB in float64

# Error allowed against the float64 definition, beyond rounding to the dtype and relative to 1 + |value|, unless the
# YAML says otherwise.
_TOLERANCE = {"float32": 1e-5, "float16": 1e-3, "bfloat16": 8e-3}


@dataclass(frozen=True)
class KernelFile:
    """A .metal file with its description and, where there is one, its definition in float64."""

    kernel: Kernel
    description: Description
    definition: Callable[..., dict[str, np.ndarray]] | None
    cuda: Mapping[str, Kernel] = field(default_factory=dict)  # CUDA's own sources, by architecture

    @property
    def name(self) -> str:
        """The kernel's name."""
        return self.kernel.name

    def resolve(self, sizes: Mapping[str, Any]) -> Sizes:
        """The sizes of a case with defaults below and derived sizes above.

        Raises UserError for an unknown size, and for a value that is none of its `choices`.
        """
        known = {*self.description.defaults, *self.description.random, *self.description.derived}
        known |= {name for case in self.description.cases for name in case}
        if unknown := sizes.keys() - known:
            raise UserError(f"{self.name}: unknown size {min(unknown)!r}; known are {', '.join(sorted(known))}")
        resolved = {**self.description.defaults, **sizes}
        for name, expression in self.description.derived.items():
            if name not in sizes:
                resolved[name] = evaluate(expression, resolved)
        for name, choices in self.description.choices.items():
            if name not in resolved:
                raise UserError(f"{self.name}: choices.{name}: no case and no default gives {name!r}")
            if resolved[name] not in choices:
                known = ", ".join(map(str, choices))
                raise UserError(f"{self.name}: {name} must be one of {known}, got {resolved[name]!r:.60}")
        return resolved

    def random_sizes(self, source: random.Random) -> Sizes:
        """Sizes drawn from the description's `random`: `1..80` is a range, a list is a choice. UserError for others."""
        drawn = {}
        for name, choices in self.description.random.items():
            span = re.fullmatch(r"(-?\d{1,18})\.\.(-?\d{1,18})", choices) if isinstance(choices, str) else None
            if span and int(span[1]) <= int(span[2]):
                drawn[name] = source.randint(int(span[1]), int(span[2]))
            elif isinstance(choices, list) and choices:
                drawn[name] = source.choice(choices)
            else:
                raise UserError(
                    f"{self.name}: random.{name} must be a range such as 1..80 or a list, got {choices!r:.60}"
                )
        return drawn

    def launch(self, sizes: Sizes) -> Launch:
        """The arguments at resolved sizes."""
        description = self.description
        return Launch(
            [_integers(f"{self.name}: {name}", given.shape, sizes) for name, given in description.outputs.items()],
            [dtype_name(evaluate(given.dtype, sizes)) for given in description.outputs.values()],
            [(name, evaluate(value, sizes)) for name, value in description.template.items()],
            _integers(f"{self.name}: grid", description.grid, sizes, 1),
            _integers(f"{self.name}: threadgroup", description.threadgroup, sizes, 1),
            description.init_value,
        )

    def native(self, architecture: str, sizes: Sizes) -> NativeLaunch | None:
        """How CUDA's own source is launched on this architecture at resolved sizes; None where there is none."""
        described, what = self.description.cuda.get(architecture), f"{self.name}: cuda.{architecture}"
        if described is None:
            return None
        if unknown := described.when.keys() - sizes.keys():
            raise UserError(f"{what}.when: unknown size {min(unknown)!r}; known are {', '.join(sorted(sizes))}")
        if any(sizes[name] not in values for name, values in described.when.items()):
            return None
        launch = replace(
            self.launch(sizes),
            grid=_integers(f"{what}.grid", described.grid, sizes, 1),
            threadgroup=_integers(f"{what}.threadgroup", described.threadgroup, sizes, 1),
        )
        (shared_memory,) = _integers(f"{what}.shared_memory", [described.shared_memory], sizes)
        if shared_memory > _MOST_SHARED:
            raise UserError(f"{what}.shared_memory is {shared_memory:,} bytes; no GPU has more than {_MOST_SHARED:,}")
        return NativeLaunch(self.cuda[architecture], launch, shared_memory)

    def input_dtype(self, name: str, sizes: Sizes) -> str:
        """The dtype that an input must have at resolved sizes."""
        return dtype_name(evaluate(self.description.inputs[name].dtype, sizes))

    def input_shape(self, name: str, sizes: Sizes) -> tuple[int, ...]:
        """The shape that an input must have at resolved sizes."""
        given = self.description.inputs[name]
        return (
            (len(given.value),)
            if given.value is not None
            else _integers(f"{self.name}: {name}", given.shape or [], sizes)
        )

    def values(self, sizes: Sizes) -> dict[str, np.ndarray]:
        """The inputs that the YAML gives by their values, in their dtype."""
        found = {}
        for name, given in self.description.inputs.items():
            if given.value is not None:
                values = [evaluate(expression, sizes) for expression in given.value]
                try:
                    found[name] = np.array(values, self.input_dtype(name, sizes))
                except (ValueError, TypeError, OverflowError) as error:
                    raise UserError(f"{self.name}: inputs.{name}: {one_line(str(error))}") from None
        return found

    def call(self, sizes: Sizes, seed: int = 0) -> Call:
        """The arguments at resolved sizes, with random inputs. Raises UserError for one that cannot be drawn."""
        source = np.random.default_rng(seed)
        inputs = self.values(sizes)
        for name, given in self.description.inputs.items():
            if given.value is None:
                shape, dtype = self.input_shape(name, sizes), self.input_dtype(name, sizes)
                if math.prod(shape) > _MOST_ELEMENTS:
                    raise UserError(f"{self.name}: {name} has the shape {shape}: more than {_MOST_ELEMENTS:,} elements")
                try:
                    inputs[name] = _random(given, shape, dtype, sizes, source)
                except (ValueError, TypeError, ArithmeticError) as error:
                    raise UserError(f"{self.name}: {name} cannot be drawn: {one_line(str(error))}") from None
            if inputs[name].size < given.min_elements:
                raise UserError(
                    f"{self.name}: {name} must have at least {given.min_elements} elements, has {inputs[name].size}"
                )
        ordered = {name: (self.input_dtype(name, sizes), inputs[name]) for name in self.description.inputs}
        return Call(**vars(self.launch(sizes)), inputs=ordered)

    def tolerance(self, output: str, dtype: str) -> float:
        """The error allowed in an output that has this dtype, beyond rounding to it and relative to 1 + |value|."""
        own, given = self.description.outputs[output].tolerance, self.description.tolerance
        if own is not None:
            return own
        return given.get(dtype, _TOLERANCE.get(dtype, 0.0)) if isinstance(given, dict) else given


def _integers(what: str, expressions: list[Expression], sizes: Sizes, least: int = 0) -> tuple[int, ...]:
    """Lengths. Raises UserError for one that is no whole number, or less than `least`."""
    found = [(expression, evaluate(expression, sizes)) for expression in expressions]
    for expression, value in found:
        if (
            not isinstance(value, int | float)
            or not math.isfinite(value)
            or value != int(value)
            or not least <= value < 2**63
        ):
            given = ", ".join(f"{name}={size}" for name, size in sizes.items())
            raise UserError(f"{what}: {expression} is {value}, not a whole number from {least} up, for {given}")
    return tuple(int(value) for _, value in found)


def _random(
    given: InputDescription, shape: tuple[int, ...], dtype: str, sizes: Sizes, source: np.random.Generator
) -> np.ndarray:
    if dtype == "bool":
        return source.integers(0, 2, shape).astype(np.bool_)
    if "float" not in dtype:
        drawn = source.integers(given.low, int(evaluate(given.high, sizes)), shape).astype(dtype)
        return np.sort(drawn) if given.values == "ascending" else drawn
    values = source.random(shape) if given.values == "uniform" else source.standard_normal(shape)
    if given.values == "symmetric":
        values = (values + values.swapaxes(-1, -2)) / 2
    values = values * evaluate(given.scale, sizes) + evaluate(given.offset, sizes)
    masked = evaluate(given.masked, sizes)
    return (np.where(source.random(shape) < masked, -np.inf, values) if masked else values).astype(np.float32)
