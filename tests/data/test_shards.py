from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from mlx_autoresearch.data.shards import MANIFEST, Manifest, ShardWriter, TokenShards, file_info, verify_files
from mlx_autoresearch.errors import UserError

TOKEN_BYTES = np.array([0, 1, 2, 3, 4], np.int32)
DOCUMENTS = [np.array(ids) for ids in ([0, 1, 2], [0, 4, 4, 4], [0], [0, 3])]


def write(folder: Path, split: str = "train", token_bytes: np.ndarray = TOKEN_BYTES) -> TokenShards:
    with ShardWriter(folder, split, token_bytes) as writer:
        writer.append(DOCUMENTS[:3])
        writer.append(DOCUMENTS[3:])
        return writer.close()


def write_folder(folder: Path) -> Manifest:
    train, val = write(folder, "train"), write(folder, "val")
    (folder / "tokenizer.json").write_text("{}")
    manifest = Manifest(
        source={},
        fingerprint="",
        vocab_size=5,
        tokenizer={},
        splits={"train": train.info, "val": val.info},
        duplicates_dropped=0,
        resembling_dropped=0,
        val_sha256=val.sha256,
        files={"tokenizer.json": file_info(folder / "tokenizer.json")},
        versions={},
    )
    manifest.save(folder)
    return manifest


def test_documents_come_back_as_they_went_in(tmp_path: Path) -> None:
    shards = write(tmp_path)
    assert isinstance(shards.tokens, np.memmap)
    assert shards.tokens.dtype == np.uint16
    assert shards.offsets.dtype == np.int64
    bounds = zip(shards.offsets, shards.offsets[1:], strict=False)
    assert [shards.tokens[start:end].tolist() for start, end in bounds] == [d.tolist() for d in DOCUMENTS]
    assert (shards.info.documents, shards.info.tokens, shards.info.bytes) == (4, 10, 3 + 12 + 0 + 3)


def test_tokens_are_read_only(tmp_path: Path) -> None:
    shards = write(tmp_path)
    for array in (shards.tokens, shards.offsets):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_the_largest_token_id_fits(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "val", np.ones(1 << 16, np.int32)) as writer:
        writer.append([np.array([0, (1 << 16) - 1])])
        shards = writer.close()
    assert shards.info.dtype == "uint16"
    assert shards.tokens.tolist() == [0, (1 << 16) - 1]


def test_the_length_of_a_token_leaves_bos_out(tmp_path: Path) -> None:
    assert write(tmp_path).info.bytes_per_token == 18 / (10 - 4)


def test_hashes_are_those_of_the_files(tmp_path: Path) -> None:
    shards = write(tmp_path)
    assert shards.sha256 == hashlib.sha256((tmp_path / "train.bin").read_bytes()).hexdigest()
    for name, info in shards.info.files.items():
        assert info == file_info(tmp_path / name)
        assert info.size == (tmp_path / name).stat().st_size
    verify_files(tmp_path, shards.info.files)


def test_manifest_round_trip(tmp_path: Path) -> None:
    manifest = write_folder(tmp_path)
    assert Manifest.load(tmp_path) == manifest
    files = {path.name for path in tmp_path.iterdir()}
    assert set(manifest.all_files) == files - {MANIFEST}


@pytest.mark.parametrize("name", ["train.bin", "train.offsets.npy", "val.bin", "val.offsets.npy", "tokenizer.json"])
@pytest.mark.parametrize("change", ["missing", "shorter", "longer"])
def test_a_file_of_the_wrong_size_is_named(tmp_path: Path, name: str, change: str) -> None:
    write_folder(tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    path.unlink() if change == "missing" else path.write_bytes(content[:-1] if change == "shorter" else content + b" ")
    with pytest.raises(UserError, match=f"{name} is damaged .*: delete {tmp_path} and run"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"source": {}}', b"\xff"])
def test_a_damaged_manifest_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    write_folder(tmp_path)
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(UserError, match=r"manifest\.json is damaged") as caught:
        Manifest.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_manifest_says_to_prepare(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `mlx-autoresearch prepare`"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("name", ["train.bin", "train.offsets.npy"])
def test_verify_finds_one_flipped_bit(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path)
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    manifest = Manifest.load(tmp_path)  # sizes are right
    with pytest.raises(UserError, match=f"{name} is damaged .*SHA-256"):
        verify_files(tmp_path, manifest.all_files)
    verify_files(tmp_path, manifest.splits["val"].files)
