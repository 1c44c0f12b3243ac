"""Text that an agent wrote, made fit to be shown: whatever it holds, it stays text, on one line where one is meant."""

from __future__ import annotations

import html
import unicodedata

# Control characters, lone surrogates, private use, and format characters, which can turn the direction of text round.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def clean(text: str) -> str:
    """`text` with everything invisible, but tabs and newlines, shown as U+FFFD."""
    return "".join("\ufffd" if c not in "\t\n" and unicodedata.category(c) in _HIDDEN else c for c in text)


def one_line(text: str, longest: int = 300) -> str:
    """`text` cleaned, on one line, cut with an ellipsis to at most `longest` characters, at a word where one ends."""
    line = " ".join(clean(text).split())
    if len(line) <= longest:
        return line
    cut = line[: longest - 1]
    head = line[:longest].rpartition(" ")[0]
    return (head if len(head) > longest // 2 else cut).rstrip(" ,;:.") + "…"


def escape(text: object) -> str:
    """Safe between tags and inside a quoted attribute of HTML and SVG."""
    return html.escape(clean(str(text)))


def duration(seconds: float) -> str:
    """42 s, 3.5 min or 7.2 h."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def amount(count: float) -> str:
    """A count with a decimal prefix: 950, 12.3k, 4.56M, 1.20G."""
    for unit, size, digits in (("G", 1e9, 2), ("M", 1e6, 2), ("k", 1e3, 1)):
        if count >= size:
            return f"{count / size:.{digits}f}{unit}"
    return f"{count:g}"
