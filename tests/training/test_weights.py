"""The digest of a model's weights is that of its checkpoint, and no other's."""

from __future__ import annotations

import errno
import json
import struct
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from mlx_autoresearch.training import weights as weights_module
from mlx_autoresearch.training.weights import digest, keep_weights_only, read_digest, weights


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
        *(
            b"\x3e\0\0\0\0\0\0\0" + f'{{"model.a":{{"dtype":{what}}}}}'.encode().ljust(62) + bytes(16)
            for what in (
                '"F32","shape":[1],"data_offsets":[0,8]',
                '"F32","shape":[1],"data_offsets":[0,4.0]',
                '"F32","shape":[1.0],"data_offsets":[0,4]',
                '"F32","shape":[true],"data_offsets":[0,4]',
                '"F4","shape":[1],"data_offsets":[0,4]',
                '["F4"],"shape":[1],"data_offsets":[0,4]',
                '"F32","shape":[-1],"data_offsets":[4,0]',
            )
        ),
    ],
)
def test_what_is_no_checkpoint_is_a_value_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    for read in (read_digest, keep_weights_only):
        with pytest.raises(ValueError):
            read(path)
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


def test_of_a_checkpoint_only_the_weights_stay(tmp_path: Path) -> None:
    """Whatever its digest does not cover could hold what was trained after it: names, gaps, order, an optimizer."""
    model = Model()
    path = saved(model, tmp_path / "x.safetensors")
    before: Any = mx.load(str(path))
    mx.eval(before)  # or it would be read from what is written there below
    expected = read_digest(path)
    (size,) = struct.unpack("<Q", path.read_bytes()[:8])
    header, data = json.loads(path.read_bytes()[8 : 8 + size]), path.read_bytes()[8 + size :]
    hidden, moved = dict(reversed(header.items())), b"hidden"
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            entry["data_offsets"] = [len(moved), len(moved) + end - begin]
            moved += data[begin:end] + b"hidden"
    hidden["__metadata__"] = {"state": '{"hidden": 1}', "hidden": "hidden"}
    described = json.dumps(hidden, indent=3).encode()
    path.write_bytes(struct.pack("<Q", len(described)) + described + moved)
    assert read_digest(path) == expected == keep_weights_only(path) == keep_weights_only(path)
    after: Any
    after, metadata = mx.load(str(path), return_metadata=True)
    assert metadata == {"state": "{}"} and b"hidden" not in path.read_bytes()
    assert sorted(after) == sorted(weights(model))
    for name, array in after.items():
        assert array.dtype == before[name].dtype and mx.array_equal(array, before[name]), name
    plain = saved(model, tmp_path / "y.safetensors")
    keep_weights_only(plain)
    assert plain.read_bytes() == path.read_bytes()


def test_a_sparse_checkpoint_takes_no_more_of_the_disk(tmp_path: Path) -> None:
    model = nn.Module()
    model.a, model.b = mx.zeros((3, 2**20)), mx.ones(7)
    path = tmp_path / "x.safetensors"
    mx.save_safetensors(str(path), weights(model), {"state": "{}"})
    keep_weights_only(path)
    assert mx.array_equal(mx.load(str(path))["model.b"], model.b)  # type: ignore[index]
    if not sys.platform.startswith("linux"):
        return
    assert path.stat().st_blocks * 512 < 2**22 < path.stat().st_size
    last = nn.Module()
    last.a = mx.zeros(2**20)
    mx.save_safetensors(str(path), weights(last), {"state": "{}"})
    keep_weights_only(path)
    assert mx.array_equal(mx.load(str(path))["model.a"], last.a), "a hole at the end counts"  # type: ignore[index]


def test_a_checkpoint_that_cannot_be_read_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Is a directory"):
        read_digest(tmp_path)


def test_where_the_disk_takes_no_more_the_checkpoint_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = saved(Model(), tmp_path / "x.safetensors")
    before = path.read_bytes()
    monkeypatch.setattr(weights_module, "_digest_of", full)
    with pytest.raises(OSError, match="No space left"):
        keep_weights_only(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


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
