"""The weights of a model by name and content: as a training ends, and as its checkpoint holds them."""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

MODEL = "model."  # what the names of weights in a checkpoint begin with
_LONGEST_HEADER = 2**24  # bytes
_DTYPES = {  # as a checkpoint names them
    mx.float32: "F32",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.float64: "F64",
    mx.complex64: "C64",
    mx.int64: "I64",
    mx.int32: "I32",
    mx.int16: "I16",
    mx.int8: "I8",
    mx.uint64: "U64",
    mx.uint32: "U32",
    mx.uint16: "U16",
    mx.uint8: "U8",
    mx.bool_: "BOOL",
}


def weights(model: nn.Module) -> dict[str, mx.array]:
    """A model's arrays by the names that they have in a checkpoint.

    What `parameters()` gives, but found without calling anything that an experiment may change.
    """
    return {MODEL + name: array for name, array in _walk(model)}


def digest(arrays: dict[str, mx.array]) -> str:
    """SHA-256 of names, dtypes, shapes and content."""
    hashed = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        _describe(hashed, name, _DTYPES.get(array.dtype, str(array.dtype)), list(array.shape))
        hashed.update(np.array(mx.contiguous(array).reshape(-1).view(mx.uint8)).data)
    return hashed.hexdigest()


def read_digest(path: Path) -> tuple[str, int]:
    """The digest of a checkpoint's weights, and how many numbers they are. Raises ValueError for any other file."""
    hashed, count = hashlib.sha256(), 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            (size,) = struct.unpack("<Q", content[:8])
            if size > _LONGEST_HEADER:
                raise ValueError("its header is too long")
            header: Any = json.loads(content[8 : 8 + size], object_pairs_hook=_unique)
            if not isinstance(header, dict):
                raise ValueError("its header is no table")
            entries, room = [], len(content) - 8 - size
            for name in sorted(n for n in header if n.startswith(MODEL)):
                dtype, shape, (begin, end) = (header[name][key] for key in ("dtype", "shape", "data_offsets"))
                if not (0 <= begin <= end <= len(content) - 8 - size and all(n >= 0 for n in shape)):
                    raise ValueError(f"{name} lies outside of it")
                if (room := room - (end - begin)) < 0:  # reading it would take as long as its header likes
                    raise ValueError(f"{name} lies where others lie")
                entries.append((name, dtype, shape, begin, end))
            for name, dtype, shape, begin, end in entries:
                _describe(hashed, name, dtype, shape)
                with memoryview(content) as view:
                    hashed.update(view[8 + size + begin : 8 + size + end])
                count += math.prod(shape)
        except (struct.error, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"it is no checkpoint: {error}") from None
    return hashed.hexdigest(), count


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two entries with one name, MLX might load the other one."""
    if len(names := dict(pairs)) < len(pairs):
        raise ValueError("it names something twice")
    return names


def _describe(hashed: Any, name: str, dtype: str, shape: list[int]) -> None:
    hashed.update(json.dumps([name, dtype, shape]).encode())


def _walk(tree: Any) -> Iterator[tuple[str, mx.array]]:
    """As MLX names what a module holds: entries that begin with "_" are none of its parameters."""
    for key, value in dict.items(tree) if isinstance(tree, dict) else enumerate(tree):
        if isinstance(key, str) and key.startswith("_") and isinstance(tree, nn.Module):
            continue
        if isinstance(value, mx.array):
            yield str(key), value
        elif isinstance(value, (dict, list, tuple)):
            for name, array in _walk(value):
                yield f"{key}.{name}", array
