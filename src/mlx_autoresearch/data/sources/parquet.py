"""Parquet files as text: opened, checked and read with errors that fit in a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mlx_autoresearch.errors import UserError

_TEXT = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
)


def check_parquet(path: Path) -> None:
    """Raise UserError unless the file's magic and footer are sound; a truncated file has no footer."""
    with _open(path):
        pass


def parquet_texts(path: Path, column: str) -> Iterator[str]:
    """The strings in `column`, nulls left out; raises UserError when the column is missing, there twice or no text.

    Text may be stored as a dictionary, and as bytes of UTF-8, as files without the mark for text have it.
    """
    with _open(path) as file:
        schema = file.schema_arrow
        if column not in schema.names:
            raise UserError(f"{path}: no column `{column}` (it has: {', '.join(schema.names)}); set `column`")
        if schema.names.count(column) > 1:
            raise UserError(f"{path}: {schema.names.count(column)} columns are called `{column}`; rename all but one")
        kind = schema.field(column).type
        if not any(test(kind.value_type if pa.types.is_dictionary(kind) else kind) for test in _TEXT):
            raise UserError(f"{path}: column `{column}` holds {kind}, not text")
        try:
            for batch in file.iter_batches(batch_size=1024, columns=[column]):
                for text in batch.column(0).to_pylist():
                    if text is not None:
                        yield text if isinstance(text, str) else text.decode()
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: column `{column}` holds text that is not UTF-8 ({error.reason})") from error
        except (pa.ArrowException, OSError) as error:
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
