"""Threadgroup variables: where a kernel declares them, directly or by a macro, and what stands there instead."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

# `threadgroup float a[8][9], b;` but not `threadgroup float* p` and not `device`, `const threadgroup T*`.
_ALIGNED = r"(?:alignas\s*\((?P<{0}>[^;{{}}]*?)\)\s*)?"
_DECLARATION = re.compile(
    rf"(?<![\w:<,(]){_ALIGNED.format('before')}\bthreadgroup\s+{_ALIGNED.format('after')}"
    r"(?P<type>(?:(?:const|volatile|unsigned|signed|long|short)\s+)*[A-Za-z_][\w:]*(?:\s*<[^;{}()=]*?>)?)\s+"
    r"(?P<names>[A-Za-z_]\w*(?:\s*\[[^\];]*\])*(?:\s*,\s*[A-Za-z_]\w*(?:\s*\[[^\];]*\])*)*)\s*;"
)
_DECLARATOR = re.compile(r"(?P<name>[A-Za-z_]\w*)(?P<extents>(?:\s*\[[^\]]*\])*)")
_POINTER_OR_DECLARATION = re.compile(r"\bthreadgroup\b(?P<rest>[^;,(){}=]*(?:\(\s*[*&])?)")
_MACRO = re.compile(
    r"^[ \t]*#[ \t]*define[ \t]+(?P<name>[A-Za-z_]\w*)(?:\((?P<parameters>[^)]*)\))?[ \t]+"
    r"(?P<text>(?:[^\n\\]|\\\n|\\)*)",
    re.M,
)

# number, type with extents, alignment or nothing, name -> the declaration's replacement
Replacement = Callable[[int, str, str, str], str]


def expand_macros(header: str, body: str) -> str:
    """The body, both without comments, with every macro that says `threadgroup` expanded; lines stay where they are."""
    macros = [match for text in (header, body) for match in _MACRO.finditer(text) if "threadgroup" in match["text"]]
    for macro in macros:
        body = _expand(macro, body)
    return body


def _expand(macro: re.Match[str], text: str) -> str:
    replacement = re.sub(r"\\\n", " ", macro["text"]).strip()
    use = re.compile(rf"(?<!#define )\b{macro['name']}\b" + (r"\s*\(" if macro["parameters"] is not None else ""))
    done, position = [], 0
    while match := use.search(text, position):
        line = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
        end, expansion = match.end(), replacement
        if macro["parameters"] is not None:
            arguments, end = _arguments(text, match.end())
            names = [name.strip() for name in macro["parameters"].split(",")]
            values = dict(zip(names, arguments, strict=False))
            expansion = re.sub(r"\w+", lambda word: values.get(word[0], word[0]), replacement)  # noqa: B023
            expansion = re.sub(r"\s*##\s*", "", expansion)
        if line.lstrip().startswith("#"):  # where it is defined
            expansion, end = match[0], match.end()
        lines = text.count("\n", match.start(), end)
        done.append(text[position : match.start()] + expansion + "\n" * (lines - expansion.count("\n")))
        position = end
    return "".join(done) + text[position:]


def _arguments(text: str, start: int) -> tuple[list[str], int]:
    """What stands between a macro's parentheses, of which the first is just before `start`, and where it ends."""
    depth, arguments = 1, [""]
    for position in range(start, len(text)):
        character = text[position]
        depth += (character in "([{") - (character in ")]}")
        if depth == 0:
            return [argument.strip() for argument in arguments], position + 1
        if character == "," and depth == 1:
            arguments.append("")
        else:
            arguments[-1] += character
    return arguments, len(text)


def replace_declarations(body: str, replacement: Replacement) -> str:
    """Replaces each threadgroup declarator in a text without comments, keeping line numbers."""
    count = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        declarations = []
        for declarator in _DECLARATOR.finditer(match["names"]):
            count += 1
            extents = re.sub(r"\s", "", declarator["extents"])
            alignment = match["before"] or match["after"] or ""
            declarations.append(replacement(count, match["type"] + extents, alignment, declarator["name"]))
        return " ".join(declarations) + "\n" * match.group().count("\n")

    return _DECLARATION.sub(replace, body)


def declarations(text: str) -> Iterator[int]:
    """Where threadgroup variables are declared in a text without comments."""
    for match in _DECLARATION.finditer(text):
        yield match.start()


def not_understood(body: str) -> Iterator[int]:
    """Where the word threadgroup declares neither what `replace_declarations` finds nor a pointer or reference."""
    rest = _DECLARATION.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), body)
    rest = _MACRO.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), rest)
    for match in _POINTER_OR_DECLARATION.finditer(rest):
        if not re.search(r"[*&]", match["rest"]) and not re.match(r"\s*_", match["rest"]):
            yield match.start()
