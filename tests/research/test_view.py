"""What a search shows while it runs."""

from __future__ import annotations

import errno
import io
import os

import pytest

from mlx_autoresearch.research.view import View


class Full(io.StringIO):
    def __init__(self, number: int):
        super().__init__()
        self.number = number

    def flush(self) -> None:
        raise OSError(self.number, os.strerror(self.number))


def test_a_log_on_a_full_disk_does_not_end_the_search() -> None:
    View(Full(errno.ENOSPC)).say("a line")
    with pytest.raises(BrokenPipeError):
        View(Full(errno.EPIPE)).say("a line")


def test_a_run_that_is_waited_for_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    view = View()
    for message in ["waiting for a", "waiting for a", "waiting for b", "waiting for b"]:
        view.progress({"event": "waiting", "message": message})
    assert capsys.readouterr().out.splitlines() == ["waiting for a", "waiting for b"]
