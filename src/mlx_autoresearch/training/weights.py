"""The weights of a model by name and content: as a training ends, and as its checkpoint holds them."""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_autoresearch.machine.files import replacing

MODEL = "model."  # what the names of weights in a checkpoint begin with
_LONGEST_HEADER = 2**24  # bytes
_CHUNK = 2**20  # bytes that are hashed, and written, at a time
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
_SIZES = {name: dtype.size for dtype, name in _DTYPES.items()}  # bytes of one number


@dataclass(frozen=True)
class _Entry:
    """An array in a checkpoint: its bytes begin and end there."""

    name: str
    dtype: str
    shape: list[int]
    begin: int
    end: int


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
    """The digest of a checkpoint's weights, and how many numbers they are.

    Raises ValueError for any other file, and for one that cannot be read.
    """
    with _open(path) as content:
        return _digest_of(content, _weights_in(content), to=None)


def keep_weights_only(path: Path) -> tuple[str, int]:
    """What `read_digest` gives; and a new checkpoint takes this one's place, which has its weights and nothing else.

    No optimizer, no state, and not a byte beside the weights: what their digest does not cover is gone. Raises
    ValueError as `read_digest` does, and OSError where the disk takes no more; then the file is as it was.
    """
    with _open(path) as content:
        entries, end = _weights_in(content), 0
        header: dict[str, Any] = {"__metadata__": {"state": "{}"}}
        for entry in entries:
            begin, end = end, end + entry.end - entry.begin
            header[entry.name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [begin, end]}
        described = json.dumps(header).encode()
        described += b" " * (-len(described) % 8)
        with replacing(path, durable=False) as new, new.open("wb") as file:
            file.write(struct.pack("<Q", len(described)) + described)
            found = _digest_of(content, entries, to=file)
            file.truncate()
    return found


@contextmanager
def _open(path: Path) -> Iterator[memoryview]:
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ValueError(error.strerror) from None
    with mapped, memoryview(mapped) as content:
        yield content


def _digest_of(content: memoryview, entries: list[_Entry], to: BinaryIO | None) -> tuple[str, int]:
    """The digest, and the number of numbers; `to` gets the arrays one after the other, long zeros as holes."""
    hashed, zeros = hashlib.sha256(), bytes(_CHUNK)
    for entry in entries:
        _describe(hashed, entry.name, entry.dtype, entry.shape)
        for start in range(entry.begin, entry.end, _CHUNK):
            with content[start : min(start + _CHUNK, entry.end)] as chunk:
                hashed.update(chunk)
                if to is not None and chunk == zeros:
                    to.seek(_CHUNK, os.SEEK_CUR)
                elif to is not None:
                    to.write(chunk)
    return hashed.hexdigest(), sum(math.prod(entry.shape) for entry in entries)


def _weights_in(content: memoryview) -> list[_Entry]:
    """The weights that a checkpoint's header names, by name. Raises ValueError where it makes no sense."""
    try:
        (size,) = struct.unpack("<Q", content[:8])
        if size > _LONGEST_HEADER:
            raise ValueError("its header is too long")
        header: Any = json.loads(bytes(content[8 : 8 + size]), object_pairs_hook=_unique)
        if not isinstance(header, dict):
            raise ValueError("its header is no table")
        entries, room = [], len(content) - 8 - size
        for name in sorted(n for n in header if n.startswith(MODEL)):
            dtype, shape, (begin, end) = (header[name][key] for key in ("dtype", "shape", "data_offsets"))
            if not all(type(n) is int and n >= 0 for n in (begin, end, *shape)) or 8 + size + end > len(content):
                raise ValueError(f"{name} lies outside of it")
            if math.prod(shape) * _SIZES[dtype] != end - begin:
                raise ValueError(f"{name} has another size than its shape")
            if (room := room - (end - begin)) < 0:  # reading it would take as long as its header likes
                raise ValueError(f"{name} lies where others lie")
            entries.append(_Entry(name, dtype, shape, 8 + size + begin, 8 + size + end))
    except (struct.error, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is no checkpoint: {error}") from None
    return entries


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
