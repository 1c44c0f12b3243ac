"""Books of Project Gutenberg, without its headers and licences."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from mlx_autoresearch.errors import UserError

from ..download import Download, fetch_all
from .base import Source
from .cut import cut
from .readers import read_lines

if TYPE_CHECKING:
    from rich.progress import Progress

# Carroll, Shelley, Dickens, Austen, Doyle, Melville, Stoker, Twain, Wilde, C. Bronte, E. Bronte, Stevenson, Wells,
# Baum, Barrie, Conrad: English prose, out of copyright in the United States.
CLASSICS = [11, 84, 98, 1342, 1661, 2701, 345, 76, 174, 1260, 768, 120, 36, 55, 16, 219]

_FLAGS = re.IGNORECASE | re.MULTILINE
# Since about 2003 the book stands between two starred lines (the title may run over to the next); before, it began
# after the "small print" and ended with a phrase.
_START = re.compile(
    r"^ ?\*{3} ?START OF (?:THE|THIS) (?:COPYRIGHTED )?PROJECT GUTENBERG(?:.*(?:\n.+){0,2}?\*{3})?.*\n", _FLAGS
)
# The "small print" stood above the book, and in some books below it.
_SMALL_PRINT = re.compile(r"^\*END ?\*? ?THE SMALL PRINT!.*(?:\n|\Z)", _FLAGS)
_SMALL_PRINT_START = re.compile(r"^\**START ?\** ?THE SMALL PRINT!", _FLAGS)
_LITTLE = 200  # characters that are no book
_END = re.compile(r"^ *\*{3} ?END OF (?:THE|THIS) (?:COPYRIGHTED )?PROJECT GUTENBERG", _FLAGS)
_OLD_END = re.compile(r"^ *\**(?:END OF|ENDE DIESES?|FIN DE) (?:THE |THIS )?PROJE[CK]T GUTENBERG", _FLAGS)
_CREDIT = re.compile(
    r"\s*(?:Produced by|Transcribed from|(?:This )?e-?(?:text|book) (?:was )?(?:produced|prepared) by)\b(?:.+\n)+",
    re.IGNORECASE,
)


class Gutenberg(Source, frozen=True):
    """Books by their number on gutenberg.org, cut into documents at paragraphs."""

    kind: Literal["gutenberg"] = "gutenberg"
    books: list[Annotated[int, Field(ge=1)]] = Field(
        default=CLASSICS, min_length=1, description="numbers on gutenberg.org"
    )
    doc_bytes: int = Field(default=1200, ge=64, description="bytes of a document, about")
    base_url: str = Field(
        default="https://www.gutenberg.org/cache/epub",
        pattern="^https?://",
        description="where {book}/pg{book}.txt is found",
    )

    reading: ClassVar[int] = 2  # the small print below a book
    location: ClassVar[frozenset[str]] = frozenset({"books", "base_url"})

    def fetch(self, downloads: Path, progress: Progress | None = None) -> None:
        base = self.base_url.rstrip("/")
        items = [
            Download(f"{base}/{book}/pg{book}.txt", self._path(downloads, book), check=check_book)
            for book in self.books
        ]
        fetch_all(items, workers=2, progress=progress)  # the site asks robots to be gentle

    def files(self, downloads: Path) -> list[tuple[str, Path]]:
        return [(f"pg{book}", self._path(downloads, book)) for book in sorted(set(self.books))]

    def read(self, path: Path) -> Iterator[str]:
        text = strip_licence("".join(read_lines(path)))
        if not text.strip():
            raise UserError(f"{path}: nothing is left of this book without its licence: leave it out of source.books")
        return cut(io.StringIO(text), self.doc_bytes)

    def _path(self, downloads: Path, book: int) -> Path:
        return downloads / "gutenberg" / f"pg{book}.txt"


def check_book(path: Path) -> None:
    """Raise UserError unless the file is UTF-8 text that names Project Gutenberg and is no page of HTML."""
    text = "".join(read_lines(path))
    if "gutenberg" not in text.lower() or text.lstrip().lower().startswith(("<!doctype", "<html")):
        raise UserError(f"{path} is no book of Project Gutenberg")


def strip_licence(text: str) -> str:
    """The book alone, without the header, licence and credits of any period."""
    first = _START.search(text)
    end = _END.search(text, first.end() if first else 0)  # above the book it ends nothing
    if end is None:
        end = _last(_OLD_END, text)  # the last, because collections quote those of their parts
    if end and text[: end.start()].strip():
        text = text[: end.start()]
    start = _last(_START, text)
    if start and text[start.end() :].strip():
        text = text[start.end() :]
    text = _without_small_print(text)
    phrase = _last(_OLD_END, text, max(len(text) - 500, 0))  # it also stands just above the starred line
    text = text[: phrase.start()] if phrase else text
    credit = _CREDIT.match(text)
    return (text[credit.end() :] if credit else text).strip() + "\n"


def _without_small_print(text: str) -> str:
    """What follows its last line; what precedes its first one, where it stands below the book."""
    end = _last(_SMALL_PRINT, text)
    if end is None:
        return text
    starts = [match.start() for match in _SMALL_PRINT_START.finditer(text, 0, end.start())]
    above, below = text[: starts[-1] if starts else end.start()], text[end.end() :]
    if len(below.strip()) < _LITTLE < len(above.strip()):
        return _without_small_print(above)  # there may be another one above the book
    return below


def _last(pattern: re.Pattern[str], text: str, start: int = 0) -> re.Match[str] | None:
    matches = list(pattern.finditer(text, start))
    return matches[-1] if matches else None
