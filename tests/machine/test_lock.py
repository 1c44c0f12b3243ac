"""Processes take turns on the device, whatever becomes of the one that holds it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from mlx_autoresearch.machine.lock import acquired, device_lock, is_free
from mlx_autoresearch.machine.paths import cache_dir

HOLD = """
import sys
from mlx_autoresearch.machine.lock import device_lock
with device_lock(lambda line: print(line, flush=True)) as waited:
    print("held", waited > 0, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_AUTORESEARCH_CACHE", str(tmp_path / "cache"))


def hold(*arguments: str) -> subprocess.Popen[str]:
    """A process that holds the device, or waits for it, until it reads a line."""
    argv = [sys.executable, "-c", HOLD, *arguments]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_the_second_process_says_whom_it_waits_for_and_goes_on_when_the_first_is_killed() -> None:
    with hold("train", "a b.yaml", "--storage", "postgresql://me:secret@host/x") as first:
        assert read(first) == "held False"
        with hold() as second:
            line = read(second)
            assert line.startswith(f"waiting for another run on this machine to finish: process {first.pid}, ")
            assert line.endswith("train 'a b.yaml' --storage")
            first.kill()
            assert read(second) == "held True"
            second.communicate("\n")
    assert os.listdir(cache_dir()) == ["device.lock"]


def test_a_wait_can_be_interrupted() -> None:
    with device_lock(print), hold() as second:
        assert read(second).startswith("waiting")
        second.send_signal(signal.SIGINT)
        _, errors = second.communicate()
        assert errors.strip().endswith("KeyboardInterrupt")


def test_an_exception_frees_the_device() -> None:
    with pytest.raises(ValueError, match="mine"), device_lock(pytest.fail):
        raise ValueError("mine")
    with device_lock(pytest.fail) as waited:
        assert waited < 1


@pytest.mark.parametrize("content", [b"", b"\xff\x1b[31m\nred", b"x" * 10_000, None])
def test_what_the_holder_says_is_shown_on_one_line_and_not_believed(content: bytes | None) -> None:
    with hold() as first:
        assert read(first) == "held False"
        note = cache_dir() / "device.holder"
        if content is None:
            note.unlink()
        else:
            note.write_bytes(content)
        with hold() as second:
            line = read(second)
            assert line.isprintable() and len(line) < 300
            first.communicate("\n")
            assert read(second) == "held True"
            second.communicate("\n")


def test_a_cache_that_cannot_be_written_is_said_and_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    cache_dir().write_text("a file where the folder should be")
    lines: list[str] = []
    with device_lock(lines.append):
        pass
    assert len(lines) == 1 and lines[0].startswith("warning: cannot lock")


def test_what_say_raises_is_raised() -> None:
    with hold() as first:
        assert read(first) == "held False"
        with pytest.raises(BrokenPipeError), device_lock(_broken):
            pytest.fail("held by two")
        first.communicate("\n")


def _broken(line: str) -> None:
    raise BrokenPipeError


def test_a_lock_is_free_until_somebody_holds_it(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    assert is_free(tmp_path / "lock")
    assert acquired(lock)
    assert not is_free(tmp_path / "lock")
    assert not acquired(FileLock(tmp_path / "lock"))
    lock.release()
    assert is_free(tmp_path / "lock")
