"""What the tests of downloads share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlx_autoresearch.data.download import Download, fetch_all
from tests.support.http_server import Server

BODY = bytes(range(256)) * 20
OTHER = BODY[::-1]


def fetch(server: Server, path: Path, *, url: str = "/a", attempts: int = 3, **item: Any) -> list[float]:
    """Fetch one file and return the waits between attempts, which take no time."""
    waits: list[float] = []
    fetch_all([Download(server.url + url, path, **item)], attempts=attempts, sleep=waits.append)
    return waits
