"""Reads documents out of one file, whatever its format, and finds such files in folders."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from mlx_autoresearch.errors import UserError

from .cut import cut

PROSE = (".txt", ".md", ".py")
SUFFIXES = (*PROSE, ".jsonl", ".parquet")


def read_file(path: Path, column: str = "text", doc_bytes: int | None = None) -> Iterator[str]:
    """The documents of a file: the records of .jsonl and .parquet, the cut (`None`: whole) text of anything else."""
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        yield from jsonl_texts(path, column)
    elif suffix == ".parquet":
        from .parquet import parquet_texts  # pyarrow takes a third of a second to import

        yield from parquet_texts(path, column)
    elif doc_bytes is None:
        yield "".join(read_lines(path))
    else:
        yield from cut(read_lines(path), doc_bytes)


def read_lines(path: Path) -> Iterator[str]:
    """Lines of UTF-8 text ending in a bare newline; raises UserError with the line number of what is no such text."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    with file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"{path}:{number}: not UTF-8 ({error.reason}); convert the file to UTF-8") from error
            if "\0" in line:
                raise UserError(
                    f"{path}:{number}: holds NUL characters, as UTF-16 and padded files do; convert it to UTF-8"
                )
            yield line[:-2] + "\n" if line.endswith("\r\n") else line


def jsonl_texts(path: Path, column: str) -> Iterator[str]:
    """The text in field `column` of every line; raises UserError with the line number of a bad one."""
    for number, line in enumerate(read_lines(path), 1):
        if line.isspace():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}:{number}: not valid JSON ({error})") from error
        except RecursionError:
            raise UserError(f"{path}:{number}: arrays or objects nested too deep to read") from None
        if not isinstance(record, dict) or column not in record:
            found = f"it has: {', '.join(record)}" if isinstance(record, dict) else "it is no object"
            raise UserError(f"{path}:{number}: no field `{column}` ({found}); set `column`")
        text = record[column]
        if text is None:
            continue
        if not isinstance(text, str):
            raise UserError(f"{path}:{number}: field `{column}` is {type(text).__name__}, not text")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise UserError(f"{path}:{number}: field `{column}` has half a surrogate pair, which is no Unicode text")
        yield text


def walk(root: Path, suffixes: Collection[str], skip: Collection[str] = ()) -> Iterator[Path]:
    """Files under `root` with one of `suffixes`, sorted; hidden names and folders named in `skip` are left out."""
    found = []
    for folder, folders, names in os.walk(root, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in skip]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    yield from sorted(path for path in found if path.suffix.lower() in suffixes and path.is_file())


def _refuse(error: OSError) -> None:
    raise UserError(f"cannot read {error.filename}: {error.strerror}") from error
