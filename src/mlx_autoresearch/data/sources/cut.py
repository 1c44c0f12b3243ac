"""Cuts running text into documents at natural boundaries: definitions, headings, paragraphs, lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

# What begins a piece of its own after a blank line: a definition, its decorator or comment, a Markdown heading.
OPENING = re.compile(r"(?:async def|def|class)\b|[@#]")


def cut(lines: Iterable[str], doc_bytes: int) -> Iterator[str]:
    """Cut lines (with their line ends) into documents of about `doc_bytes` bytes of UTF-8, losing nothing.

    Each document has between half and twice `doc_bytes`, except that a shorter text is one document. The best boundary
    between 0.5 and 1.5 `doc_bytes` wins: after a blank line (best an opening, without indent), at a line, at a space.
    """
    low, high = doc_bytes // 2, doc_bytes // 2 + doc_bytes
    pending: list[tuple[str, int, int]] = []  # (piece, bytes, merit of cutting before it)
    total = 0
    for piece in _pieces(lines, doc_bytes):
        pending.append(piece)
        total += piece[1]
        while total > 2 * doc_bytes:  # so that what stays after a cut is never a crumb
            size, best = 0, (-1, 0, 0, 0)
            for index, (_, length, merit) in enumerate(pending):
                if low <= size <= high:  # never empty: no piece is longer than doc_bytes, the width of this window
                    best = max(best, (merit, -abs(size - doc_bytes), index, size))
                size += length
            _, _, index, size = best
            yield "".join(text for text, _, _ in pending[:index])
            del pending[:index]
            total -= size
    if pending:
        yield "".join(text for text, _, _ in pending)


def _pieces(lines: Iterable[str], doc_bytes: int) -> Iterator[tuple[str, int, int]]:
    """Yields (piece, its bytes, merit of a cut before it); a piece is a line, or a part of a long line."""
    longest = max(doc_bytes // 4, 1)  # characters; one takes up to 4 bytes
    splitter = re.compile(rf".{{1,{longest}}}(?:(?<=\s)|\Z)|.{{1,{longest}}}", re.DOTALL)
    blank = False
    for line in lines:
        first, *more = [line] if len(line) <= longest else splitter.findall(line)
        # 5: def f():   4: A paragraph.   3:     def f(self):   2:     x = 1   (these after a blank line)   1: any line
        merit = 2 + bool(OPENING.match(first.lstrip())) + 2 * (not first[0].isspace()) if blank else 1
        yield first, len(first.encode()), merit
        for piece in more:
            yield piece, len(piece.encode()), 0
        blank = line.isspace()
