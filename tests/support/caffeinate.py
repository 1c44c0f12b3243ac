"""What the simulated Mac's caffeinate was asked to do, and whether it still runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SAID = "keeping this Mac awake (caffeinate); the display may sleep"


class Caffeinate:
    """Records into `file` how caffeinate is started from now on."""

    def __init__(self, file: Path, monkeypatch: pytest.MonkeyPatch):
        self._file = file
        monkeypatch.setenv("SIMULATED_CAFFEINATE", str(file))

    def calls(self) -> list[list[str]]:
        """The arguments of each that was started."""
        return [line.split()[1:] for line in self._lines()]

    def runs(self) -> bool:
        """Whether one of them is running."""
        return any(self._alive(int(line.split()[0])) for line in self._lines())

    def _lines(self) -> list[str]:
        return self._file.read_text().splitlines() if self._file.exists() else []

    def _alive(self, pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True
