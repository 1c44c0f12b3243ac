from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.http_server import Server
from tests.support.preparing import Counted, Fake


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def no_reads_yet() -> None:
    Fake.reads.clear()
    Counted.calls.clear()


@pytest.fixture
def text_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(20):
        (folder / f"{i}.txt").write_text(f"This is text number {i} of twenty. " * 5)
    return folder
