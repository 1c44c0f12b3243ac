"""A disk that takes no more is told from other errors, and is waited for."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.machine import disk
from mlx_autoresearch.machine.disk import Disks, disk_error, trouble


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def test_a_disks_error_is_known_by_its_number_its_cause_and_what_git_prints() -> None:
    outer = RuntimeError("outer")
    outer.__cause__ = error(errno.EROFS)
    for known in (error(errno.ENOSPC), error(errno.EDQUOT), error(errno.EIO), outer):
        assert disk_error(known)
    assert disk_error(UserError(f"git add: error: unable to write file: {os.strerror(errno.ENOSPC)}"))
    for other in (error(errno.ENOENT), error(errno.EACCES), KeyError("x"), None):
        assert not disk_error(other)
    outer.__cause__ = None
    outer.__context__, outer.__suppress_context__ = error(errno.ENOSPC), True
    assert not disk_error(outer)


def test_a_disk_that_takes_data_has_no_trouble(tmp_path: Path) -> None:
    assert trouble(tmp_path / "not" / "there" / "yet") is None
    assert os.listdir(tmp_path) == []
    assert str(trouble(tmp_path, 1 << 62)).endswith(f"bytes free on {tmp_path}, where {1 << 62:,} are needed")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "bytes free on "),
        (errno.EDQUOT, f"cannot be written: {os.strerror(errno.EDQUOT)}"),
        (errno.EROFS, f"cannot be written: {os.strerror(errno.EROFS)}"),
        (errno.EACCES, None),
    ],
)
def test_the_trouble_is_one_line_with_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str | None
) -> None:
    def refused(**_: Any) -> None:
        raise error(number)

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    found = trouble(tmp_path)
    assert found is None if said is None else found is not None and said in found and str(tmp_path) in found


def test_it_waits_says_so_once_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = iter([0, 0, 10 << 20, 10 << 20, 10 << 20])
    monkeypatch.setattr(disk, "_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("", (), {"free": next(free)}))
    lines: list[str] = []
    calls: list[int] = []

    def write() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise error(errno.ENOSPC)

    Disks({tmp_path: lambda: 1 << 20}, lines.append).surely(write)
    assert len(calls) == 2
    assert lines == [
        f"waiting: 0 bytes free on {tmp_path}, where 1,048,576 are needed; free some space, and it goes on by itself; "
        "Ctrl-C stops",
        "the disk takes data again: going on",
    ]


def test_an_error_that_is_no_disks_is_raised_and_one_of_a_disk_that_is_fine_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "_AGAIN_SECONDS", 0.0)
    disks = Disks({tmp_path: lambda: 0})
    for wrong, times in ((KeyError("x"), 1), (error(errno.EIO), 11)):
        calls: list[int] = []

        def write(wrong: Exception = wrong, calls: list[int] = calls) -> None:
            calls.append(1)
            raise wrong

        with pytest.raises(type(wrong)):
            disks.surely(write)
        assert len(calls) == times
