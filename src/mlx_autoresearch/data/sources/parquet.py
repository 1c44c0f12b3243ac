"""Parquet files as text: opened, checked and read with errors that fit in a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mlx_autoresearch.errors import UserError


def check_parquet(path: Path) -> None:
    """Raise UserError unless the file's magic and footer are sound; a truncated file has no footer."""
    with _open(path):
        pass


def parquet_texts(path: Path, column: str) -> Iterator[str]:
    """The strings in `column`, nulls left out; raises UserError when the column is missing or no text."""
    with _open(path) as file:
        schema = file.schema_arrow
        if column not in schema.names:
            raise UserError(f"{path}: no column `{column}` (it has: {', '.join(schema.names)}); set `column`")
        kind = schema.field(column).type
        if not any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)):
            raise UserError(f"{path}: column `{column}` holds {kind}, not text")
        try:
            for batch in file.iter_batches(batch_size=1024, columns=[column]):
                yield from (text for text in batch.column(0).to_pylist() if text is not None)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path} is damaged ({_first_line(error)}); remove it and run `mlx-autoresearch prepare`"
            ) from error


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a whole parquet file ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
