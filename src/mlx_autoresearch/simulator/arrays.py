"""Inputs and outputs: mx or numpy arrays on one side, buffers of bytes on the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_autoresearch.errors import UserError

# dtype name -> (its name in Metal, as MLX writes it; the numpy type with the same bytes)
DTYPES: dict[str, tuple[str, type[np.generic]]] = {
    "bool": ("bool", np.bool_),
    "uint8": ("uint8_t", np.uint8),
    "uint16": ("uint16_t", np.uint16),
    "uint32": ("uint32_t", np.uint32),
    "uint64": ("uint64_t", np.uint64),
    "int8": ("int8_t", np.int8),
    "int16": ("int16_t", np.int16),
    "int32": ("int32_t", np.int32),
    "int64": ("int64_t", np.int64),
    "float16": ("float16_t", np.float16),
    "bfloat16": ("bfloat16_t", np.uint16),
    "float32": ("float", np.float32),
}


def dtype_name(dtype: Any) -> str:
    """The name of an mx or numpy dtype, or of a name. Raises UserError for one that Metal or the simulator lacks."""
    if isinstance(dtype, str):
        name = dtype
    elif isinstance(dtype, (type, np.dtype)):
        name = np.dtype(dtype).name
    else:
        name = str(dtype)
    name = name.removeprefix("mlx.core.")
    name = {"bool_": "bool"}.get(name, name)
    if name not in DTYPES:
        raise UserError(f"simulator: dtype {name} is not supported; expected one of {', '.join(DTYPES)}")
    return name


def metal_name(dtype: Any) -> str:
    """The dtype as MLX writes it in Metal source: float32 -> float, bfloat16 -> bfloat16_t."""
    return DTYPES[dtype_name(dtype)][0]


def round_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """The bits (uint16) of float32 values rounded to nearest even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), np.uint32(0x7FC0), rounded).astype(np.uint16)


def widen_bfloat16(bits: np.ndarray) -> np.ndarray:
    """bfloat16 bits (uint16) as float32: exact."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


@dataclass(frozen=True)
class HostArray:
    """The bytes of an array; `storage` is a numpy array whose type has the same width (uint16 for bfloat16)."""

    dtype: str
    storage: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the array."""
        return self.storage.shape

    @property
    def strides(self) -> list[int]:
        """In elements. Of a contiguous array, those that MLX gives: numpy's are arbitrary where a dimension is 1."""
        if not self.storage.flags.c_contiguous:
            return [stride // self.storage.itemsize for stride in self.storage.strides]
        strides = [1] * self.storage.ndim
        for i in range(self.storage.ndim - 2, -1, -1):
            strides[i] = strides[i + 1] * self.storage.shape[i + 1]
        return strides

    @property
    def first(self) -> int:
        """Where in `span` element 0 lies: at the other end of each dimension with a negative stride."""
        if not self.storage.size:
            return 0
        steps = zip(self.storage.shape, self.strides, strict=True)
        return sum((size - 1) * -stride for size, stride in steps if stride < 0)

    def span(self) -> np.ndarray:
        """The memory from the lowest element to the highest, flat: what a kernel may reach through the strides."""
        if self.storage.flags.c_contiguous:
            return self.storage.reshape(-1)
        steps = zip(self.storage.shape, self.strides, strict=True)
        length = 1 + sum((size - 1) * abs(stride) for size, stride in steps) if self.storage.size else 0
        lowest = self.storage[tuple(slice(None, None, -1 if step < 0 else 1) for step in self.storage.strides)]
        return np.lib.stride_tricks.as_strided(lowest, (length,), (self.storage.itemsize,))


def is_mx(value: Any) -> bool:
    """Whether it is an mx array, told without importing MLX."""
    return type(value).__module__.startswith("mlx.")


def to_host(value: Any, row_contiguous: bool) -> HostArray:
    """An mx array, numpy array or Python number as bytes; numbers become float32, int32 or bool, as in MLX."""
    if is_mx(value):
        dtype = dtype_name(value.dtype)
        if dtype == "bfloat16":
            import mlx.core as mx

            value = value.view(mx.uint16)
        storage = np.asarray(memoryview(value)) if value.ndim else np.array(value)
    elif isinstance(value, (bool, int, float)):
        dtype = "bool" if isinstance(value, bool) else "int32" if isinstance(value, int) else "float32"
        storage = np.array(value, DTYPES[dtype][1])
    else:
        storage = np.asarray(value)
        dtype = dtype_name(storage.dtype)  # "bfloat16" where the ml_dtypes package defines it
        storage = storage.view(DTYPES[dtype][1])
    if row_contiguous and storage.ndim:
        storage = np.ascontiguousarray(storage)
    return HostArray(dtype, storage)


def make_output(shape: Any, dtype: Any, init_value: float | None) -> HostArray:
    """An array for a kernel to write to, filled with `init_value`, or with zeros where it is None."""
    name = dtype_name(dtype)
    storage = np.zeros(tuple(shape), DTYPES[name][1])
    if init_value is not None:
        storage[...] = round_to_bfloat16(np.asarray(init_value, np.float32)) if name == "bfloat16" else init_value
    return HostArray(name, storage)


def from_host(array: HostArray, as_mx: bool) -> Any:
    """The array as mx or numpy. numpy has no bfloat16: there it becomes float32, which holds it exactly."""
    if as_mx:
        import mlx.core as mx

        result = mx.array(array.storage)
        return result.view(mx.bfloat16) if array.dtype == "bfloat16" else result
    return widen_bfloat16(array.storage) if array.dtype == "bfloat16" else array.storage
