"""What the tests of text sources share."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlx_autoresearch.data.sources import Source

NOWHERE = Path("/no/downloads/needed")


def both(source: Source, downloads: Path = NOWHERE) -> tuple[list[str], list[str]]:
    """The documents of the training and of the validation split."""
    corpus = source.open(downloads)
    return list(corpus.documents("train")), list(corpus.documents("val"))


def everything(source: Source, downloads: Path = NOWHERE) -> list[str]:
    train, val = both(source, downloads)
    assert train and val
    return train + val


def write(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def parquet(**columns: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()
