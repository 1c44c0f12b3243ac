"""The digest of a model's weights is that of its checkpoint, and no other's."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from mlx_autoresearch.training import weights as weights_module
from mlx_autoresearch.training.weights import digest, read_digest, weights


class Model(nn.Module):
    """Of modules in lists and dictionaries, dtypes and shapes of all kinds, and things that are no parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(3, 4), {"a": nn.Linear(2, 2, bias=False), "b": mx.zeros((2, 0))}]
        self.scale = mx.array(2.0, mx.bfloat16)
        self.half = mx.arange(24, dtype=mx.float16).reshape(2, 3, 4).transpose(2, 0, 1)
        self._table = mx.ones(3)
        self.width = 3


class Tampering(Model):
    """Changes its weights whenever it is asked for them."""

    def parameters(self) -> Any:
        self.scale = self.scale + 1
        return super().parameters()

    items = keys = None  # type: ignore[assignment]


def saved(model: nn.Module, path: Path) -> Path:
    arrays = {f"model.{name}": array for name, array in tree_flatten(nn.Module.parameters(model))}  # type: ignore[union-attr]
    mx.save_safetensors(str(path), arrays | {"optimizer.x": mx.ones(5)}, {"state": "{}"})
    return path


def test_a_checkpoint_has_the_digest_of_its_model(tmp_path: Path) -> None:
    model = Model()
    names = [name for name, _ in tree_flatten(model.parameters())]  # type: ignore[union-attr]
    assert sorted(weights(model)) == sorted(f"model.{name}" for name in names)
    assert read_digest(saved(model, tmp_path / "x.safetensors")) == (digest(weights(model)), 12 + 4 + 4 + 1 + 24)


@pytest.mark.parametrize("dtype", [d for d in weights_module._DTYPES if d != mx.float64], ids=str)
def test_weights_of_every_dtype_are_known(tmp_path: Path, dtype: mx.Dtype) -> None:
    model = Model()
    model.scale = mx.array([0, 1, 1, 0]).astype(dtype)
    assert read_digest(saved(model, tmp_path / "x.safetensors"))[0] == digest(weights(model))


def test_any_change_is_another_digest() -> None:
    first = digest(weights(Model()))
    model = Model()
    model.layers[0].weight = model.layers[0].weight + 0  # other weights: every model draws its own
    changed = [digest(weights(model))]
    for array in (mx.array(3.0, mx.bfloat16), mx.array(2.0), mx.array([2.0], mx.bfloat16)):
        model.scale = array
        changed.append(digest(weights(model)))
    assert len({first, *changed}) == 5


def test_nothing_of_the_model_is_called() -> None:
    model = Tampering()
    before = digest(weights(model))
    assert digest(weights(model)) == before
    assert model.scale.item() == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"\xff" * 64,
        b"\x02\0\0\0\0\0\0\0[]",
        b"\x0a\0\0\0\0\0\0\0" + b"[" * 10,
        b"\x40\0\0\0\0\0\0\0" + b'{"model.a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 9]}}'[:64],
        b"\x3e\0\0\0\0\0\0\0" + b'{"model.a":{"dtype":"F32","shape":[1],"data_offsets":[0,900]}}',
        b"\x0f\0\0\0\0\0\0\0" + b'{"a":{},"a":{} }',
        b"\x3e\0\0\0\0\0\0\0" + b'{"model.a":{"dtype":"F32","shape":1,"data_offsets":["0",900]}}',
    ],
)
def test_what_is_no_checkpoint_is_a_value_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError):
        read_digest(path)


def test_no_byte_is_read_for_two_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200,000 entries fit into a header: all over the same 100 MB, they took the night to read."""
    read: list[int] = []

    class Counting:
        def update(self, data: Any) -> None:
            read.append(len(data))

        def hexdigest(self) -> str:
            return ""

    monkeypatch.setattr(weights_module.hashlib, "sha256", Counting)
    entries = {f"model.{i}": {"dtype": "U8", "shape": [1000], "data_offsets": [0, 1000]} for i in range(20)}
    for last in ({}, {"model.z": {"dtype": "U8", "shape": [0], "data_offsets": [10**6, 0]}}):
        header = json.dumps(entries | last).encode()
        path = tmp_path / "x.safetensors"
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(1500))
        with pytest.raises(ValueError, match="lies where others lie"):
            read_digest(path)
    assert read == []
