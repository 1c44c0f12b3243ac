"""Whatever goes wrong while text is prepared, nothing half-made or damaged is used."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_autoresearch.data import arrange
from mlx_autoresearch.data.prepared import open_prepared
from mlx_autoresearch.data.shards import ShardWriter, TokenShards
from mlx_autoresearch.data.sources import Text
from mlx_autoresearch.errors import UserError
from tests.support.preparing import VOCAB, Counted, Fake, make, nothing_is_left

pytestmark = pytest.mark.usefixtures("no_reads_yet")


@pytest.mark.parametrize("place", ["append", "close"])
@pytest.mark.parametrize(("number", "advice"), [(errno.ENOSPC, "free some space"), (errno.EACCES, "make it writable")])
def test_disk_full_and_forbidden_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, number: int, advice: str
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, place, fail)
        with pytest.raises(UserError, match=f"{os.strerror(number)}.*{advice}") as caught:
            make(Fake(), tmp_path)
    assert "\n" not in str(caught.value)
    assert nothing_is_left(tmp_path)
    assert make(Fake(), tmp_path).path.is_dir()


def test_a_cache_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another folder"):
        make(Fake(), tmp_path / "file")


def test_ctrl_c_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "append", interrupt)
        with pytest.raises(KeyboardInterrupt, match="nothing half-made is kept"):
            make(Fake(), tmp_path)
    assert nothing_is_left(tmp_path)
    assert make(Fake(), tmp_path).path.is_dir()


@pytest.mark.parametrize("change", ["edited", "added", "removed"])
def test_text_that_changes_meanwhile_is_refused(
    tmp_path: Path, text_folder: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    held = [p.path.name for p in Text(paths=[str(text_folder)]).open(tmp_path).parts["val"]]

    def meanwhile() -> None:
        if change == "removed":
            if Counted.calls[held[-1]]:  # once nothing is left to read
                (text_folder / "0.txt").unlink(missing_ok=True)
        else:
            (text_folder / ("0.txt" if change == "edited" else "new.txt")).write_text("other text")

    monkeypatch.setattr(Counted, "meanwhile", meanwhile)
    with pytest.raises(UserError, match="changed while"):
        make(Counted(paths=[str(text_folder)]), tmp_path / "cache")
    assert nothing_is_left(tmp_path / "cache")


def test_a_validation_document_that_gets_back_in_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def all_of_it(raw: TokenShards, order: np.ndarray, *rest: Any) -> TokenShards:
        return rearranged(raw, np.arange(raw.info.documents), *rest)

    rearranged = arrange._rearranged  # a mistake that no text can provoke must be planted
    monkeypatch.setattr(arrange, "_rearranged", all_of_it)
    with pytest.raises(RuntimeError, match="a document of val is in the training split"):
        make(Fake(val=(Fake().train[3], "only here")), tmp_path)
    assert nothing_is_left(tmp_path)


def test_damage_is_named_and_preparing_again_mends_it(tmp_path: Path) -> None:
    prepared = make(Fake(), tmp_path)
    for name in ("train.bin", "val.offsets.npy", "tokenizer.json", "manifest.json"):
        (prepared.path / name).write_bytes(b"x")
        with pytest.raises(UserError, match=f"{name} is damaged"):
            open_prepared(Fake(), vocab_size=VOCAB, cache_dir=tmp_path)
        assert make(Fake(), tmp_path).manifest == prepared.manifest
    flipped = bytearray((prepared.path / "val.bin").read_bytes())
    flipped[5] ^= 1
    (prepared.path / "val.bin").write_bytes(flipped)
    with pytest.raises(UserError, match=r"val\.bin is damaged"):
        prepared.verify()


# Other processes prepare a folder of texts; VICTIM is what they run when they are to die or to be slow.
SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from mlx_autoresearch.data import prepare, shards
from mlx_autoresearch.data.sources import Text
from mlx_autoresearch.data.tokenizer import Tokenizer

def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

def slowly(*arguments, train=Tokenizer.train):
    with open(sys.argv[2] + "/log", "a") as log:
        log.write("trained\\n")
    time.sleep(0.3)
    return train(*arguments)

exec(sys.argv[3])
print(prepare.prepare(Text(paths=[sys.argv[1]]), vocab_size=270, cache_dir=sys.argv[2]).path)
"""


def start(text_folder: Path, cache: Path, patch: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(text_folder), str(cache), patch]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    "patch",
    [
        "shards.ShardWriter.append = die",
        "prepare.shutil.rmtree = die",
        "shards.Manifest.save = die",
        "Path.rename = die",
    ],
)
def test_killed_at_any_moment_nothing_half_made_is_used(tmp_path: Path, text_folder: Path, patch: str) -> None:
    cache = tmp_path / "cache"
    victim = start(text_folder, cache, patch)
    victim.communicate(timeout=20)
    assert victim.returncode == -signal.SIGKILL
    assert not nothing_is_left(cache)  # it was killed in the middle
    source = Text(paths=[str(text_folder)])
    with pytest.raises(UserError, match="not prepared"):
        open_prepared(source, vocab_size=VOCAB, cache_dir=cache)
    prepared = make(source, cache)
    prepared.verify()
    assert {path.name for path in prepared.path.parent.iterdir()} == {prepared.path.name, ".lock"}


def test_two_processes_at_once_work_once(tmp_path: Path, text_folder: Path) -> None:
    both = [start(text_folder, tmp_path, "Tokenizer.train = slowly") for _ in range(2)]
    outputs = [process.communicate(timeout=30) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert (tmp_path / "log").read_text().split() == ["trained"]
    open_prepared(Text(paths=[str(text_folder)]), vocab_size=VOCAB, cache_dir=tmp_path).verify()
