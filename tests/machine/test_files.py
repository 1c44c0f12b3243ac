"""A file is replaced whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_autoresearch.machine import files
from mlx_autoresearch.machine.files import replacing, write_atomically
from tests.support.mac import file_control


def test_the_old_content_stays_until_the_block_has_ended(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("old")
    with replacing(file) as new:
        new.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("error", [OSError("the disk is full"), KeyboardInterrupt()], ids=repr)
def test_a_block_that_raises_changes_nothing(tmp_path: Path, error: BaseException) -> None:
    file = tmp_path / "a.json"
    file.write_text("old")
    with pytest.raises(type(error)), replacing(file) as new:
        new.write_text("half")
        raise error
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_planted_link_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("dear")
    file = tmp_path / "a.txt"
    with replacing(file) as new:
        pass_through = new
        new.write_text("x")
    pass_through.symlink_to(victim)
    file.unlink()
    file.symlink_to(victim)
    write_atomically(file, "new")
    assert (victim.read_text(), file.read_text(), file.is_symlink()) == ("dear", "new", False)


def test_the_new_file_has_the_suffix_that_mlx_asks_for(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.safetensors"
    with replacing(file) as new:
        mx.save_safetensors(str(new), {"x": mx.zeros(1)})
    assert os.listdir(tmp_path) == [file.name]


def test_many_threads_may_write_one_file_at_once(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    with ThreadPoolExecutor(8) as pool:
        written = [pool.submit(write_atomically, file, str(i % 10) * 20_000) for i in range(200)]
    for future in written:
        future.result()
    assert len(file.read_text()) == 20_000 and len(set(file.read_text())) == 1
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize(("durable", "expected"), [(True, ["a.txt", "folder"]), (False, [])])
def test_only_what_must_survive_a_power_cut_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool, expected: list[str]
) -> None:
    synced: list[str] = []

    def flush(descriptor: int) -> None:
        path = Path(os.readlink(f"/dev/fd/{descriptor}"))
        synced.append("folder" if path == tmp_path else path.name.partition(".")[2].partition(".")[2])

    monkeypatch.setattr(files, "flush_to_disk", flush)
    write_atomically(tmp_path / "a.txt", "text", durable=durable)
    assert synced == expected


def test_on_macos_it_waits_for_the_drive_itself(tmp_path: Path, mac: None) -> None:
    before = file_control.calls[file_control.F_FULLFSYNC]
    write_atomically(tmp_path / "a.txt", "text")
    assert file_control.calls[file_control.F_FULLFSYNC] == before + 2, "the file and its folder"
    write_atomically(tmp_path / "cache.txt", "text", durable=False)
    assert file_control.calls[file_control.F_FULLFSYNC] == before + 2


@pytest.mark.parametrize(
    ("number", "raises"), [(errno.ENOTSUP, False), (errno.ENOTTY, False), (errno.EINVAL, False), (errno.EIO, True)]
)
def test_where_the_file_system_cannot_wait_for_the_drive_the_plain_way_is_taken(
    tmp_path: Path, mac: None, monkeypatch: pytest.MonkeyPatch, number: int, raises: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    synced: list[int] = []
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    monkeypatch.setattr(files.os, "fsync", synced.append)
    with pytest.raises(OSError) if raises else nullcontext():
        write_atomically(tmp_path / "a.txt", "text")
    assert len(synced) == (0 if raises else 2)
    assert (tmp_path / "a.txt").exists() != raises


def test_one_function_makes_files_durable() -> None:
    package = Path(files.__file__).parents[1]
    assert [p.name for p in package.rglob("*.py") if "os.fsync(" in p.read_text("utf-8")] == ["files.py"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "no" / "a.txt", "text")


def kill_while_writing(file: Path) -> None:
    """A process that is killed (SIGKILL) in the middle of replacing `file`."""
    script = (
        "import os, sys, pathlib\n"
        "from mlx_autoresearch.machine.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as new:\n"
        "    new.write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(file)]).returncode == -9


def test_what_killed_processes_left_does_not_pile_up(tmp_path: Path) -> None:
    file, other = tmp_path / "a.json", tmp_path / "b.a.json"
    for _ in range(2):
        kill_while_writing(file)
        assert len(os.listdir(tmp_path)) == 1, "one half file at most"
    kill_while_writing(other)
    write_atomically(file, "new")
    assert file.read_text() == "new"
    assert [name for name in os.listdir(tmp_path) if name.endswith(".a.json") and ".b.a." not in name] == []
    write_atomically(other, b"new")
    assert sorted(os.listdir(tmp_path)) == ["a.json", "b.a.json"]


def test_what_other_processes_write_now_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    with replacing(file) as own:
        with ThreadPoolExecutor() as pool:
            pool.submit(write_atomically, file, "of another thread").result()
        monkeypatch.setattr(files.socket, "gethostname", lambda: "elsewhere")  # where this process number may be free
        monkeypatch.setattr(files, "_runs", lambda process: False)
        write_atomically(file, "of another machine")
        own.write_text("new")
    assert file.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.json"]
