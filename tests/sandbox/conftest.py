from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.fixture
def place(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A folder for a command, and somebody's folder with a file in it beside."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("s3cret")
    os.utime(outside / "secret", (1, 1))
    yield SimpleNamespace(inside=inside, outside=outside, secret=outside / "secret")
