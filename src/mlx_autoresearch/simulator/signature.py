"""The signature that MLX gives a kernel: which buffers and attributes it gets, and in which address spaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .arrays import DTYPES, HostArray, metal_name
from .kernel import Kernel

# In MLX's order. An attribute is a parameter if its name occurs anywhere in the source, comments included.
ATTRIBUTES = {
    "dispatch_quadgroups_per_threadgroup": "uint",
    "dispatch_simdgroups_per_threadgroup": "uint",
    "dispatch_threads_per_threadgroup": "uint3",
    "grid_origin": "uint3",
    "grid_size": "uint3",
    "quadgroup_index_in_threadgroup": "uint",
    "quadgroups_per_threadgroup": "uint",
    "simdgroup_index_in_threadgroup": "uint",
    "simdgroups_per_threadgroup": "uint",
    "thread_execution_width": "uint",
    "thread_index_in_quadgroup": "uint",
    "thread_index_in_simdgroup": "uint",
    "thread_index_in_threadgroup": "uint",
    "thread_position_in_grid": "uint3",
    "thread_position_in_threadgroup": "uint3",
    "threadgroup_position_in_grid": "uint3",
    "threadgroups_per_grid": "uint3",
    "threads_per_grid": "uint3",
    "threads_per_simdgroup": "uint",
    "threads_per_threadgroup": "uint3",
}
# MLX passes an input of fewer elements as `constant`.
SMALL = 8

_VALUES = {  # of the attributes that MslThread does not hold
    "dispatch_quadgroups_per_threadgroup": "(8 * t->dispatch_simdgroups_per_threadgroup)",
    "grid_origin": "uint3(0u)",
    "grid_size": "uint3(t->threads_per_grid[0], t->threads_per_grid[1], t->threads_per_grid[2])",
    "quadgroup_index_in_threadgroup": "(t->thread_index_in_threadgroup / 4)",
    "quadgroups_per_threadgroup": "(8 * t->simdgroups_per_threadgroup)",
    "thread_execution_width": "32u",
    "thread_index_in_quadgroup": "(t->thread_index_in_simdgroup % 4)",
    "threads_per_simdgroup": "32u",
}

Template = Sequence[tuple[str, Any]]


@dataclass(frozen=True)
class Input:
    """What the signature depends on in an input."""

    dtype: str
    ndim: int
    small: bool  # fewer than 8 elements

    @staticmethod
    def of(array: HostArray) -> Input:
        """That of an array in memory."""
        return Input(array.dtype, array.storage.ndim, array.storage.size < SMALL)


@dataclass(frozen=True)
class Signature:
    """A kernel's parameters, and what the simulator passes for each of them."""

    parameters: list[str]  # as MLX prints them, without [[attributes]]
    arguments: list[str]  # C++ expressions in `b` (the buffers) and `t` (the MslThread)
    template_parameters: str  # "bool FLAG, typename T", or nothing
    template_arguments: str  # "1, float"


def extras(kernel: Kernel, name: str) -> tuple[bool, bool, bool]:
    """Whether `name`_shape, `name`_strides and `name`_ndim are buffers of their own: if they occur in the source."""
    return f"{name}_shape" in kernel.source, f"{name}_strides" in kernel.source, f"{name}_ndim" in kernel.source


def template_value(value: Any) -> str:
    """A template argument, an integer, bool or dtype, as MLX writes it in Metal."""
    if isinstance(value, int):  # bool too: MLX writes 1 and 0
        return str(int(value))
    return metal_name(value)


def make_signature(
    kernel: Kernel, inputs: Sequence[Input], output_dtypes: Sequence[Any], template: Template
) -> Signature:
    """The parameters that MLX 0.32 generates for a call with these inputs, outputs and template arguments."""
    parameters: list[str] = []
    arguments: list[str] = []
    buffer = 0

    def pointer(parameter: str, ctype: str) -> None:
        nonlocal buffer
        parameters.append(parameter)
        arguments.append(f"({ctype}*)b[{buffer}]")
        buffer += 1

    def reference(parameter: str, ctype: str) -> None:
        pointer(parameter, ctype)
        arguments[-1] = "*" + arguments[-1]

    for name, given in zip(kernel.input_names, inputs, strict=True):
        ctype = DTYPES[given.dtype][0]
        if given.ndim == 0:
            reference(f"const constant {ctype}& {name}", f"const {ctype}")
            continue
        space = "constant" if given.small else "device"
        pointer(f"const {space} {ctype}* {name}", f"const {ctype}")
        shape, strides, ndim = extras(kernel, name)
        if shape:
            pointer(f"const constant int* {name}_shape", "const int")
        if strides:
            pointer(f"const constant int64_t* {name}_strides", "const int64_t")
        if ndim:
            reference(f"const constant int& {name}_ndim", "const int")
    for name, dtype in zip(kernel.output_names, output_dtypes, strict=True):
        ctype = f"atomic<{metal_name(dtype)}>" if kernel.atomic_outputs else metal_name(dtype)
        pointer(f"device {ctype}* {name}", ctype)
    for name, ctype in ATTRIBUTES.items():
        if name in kernel.source:
            parameters.append(f"{ctype} {name}")
            value = f"uint3(t->{name}[0], t->{name}[1], t->{name}[2])" if ctype == "uint3" else f"t->{name}"
            arguments.append(_VALUES.get(name, value))

    kinds = ["bool" if isinstance(v, bool) else "int" if isinstance(v, int) else "typename" for _, v in template]
    return Signature(
        parameters,
        arguments,
        ", ".join(f"{kind} {name}" for kind, (name, _) in zip(kinds, template, strict=True)),
        ", ".join(template_value(value) for _, value in template),
    )
