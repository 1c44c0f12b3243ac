"""Swizzles: in C++ a kernel's `v.zyx` becomes a call, and only those that the kernel names are members of vectors."""

from __future__ import annotations

import re
from collections.abc import Iterator

_COMPONENTS = {letter: i for letters in ("xyzw", "rgba") for i, letter in enumerate(letters)}
_NAME = r"[xyzw]{2,4}|[rgba]{2,4}"
# `v.zyx`, `p->rg`, and what follows where it is assigned to; not a call of a function of that name.
_SWIZZLE = re.compile(
    rf"(?P<access>(?<!\.)\.|->)(?P<blank>\s*)(?P<name>{_NAME})\b(?!\s*\()"
    r"(?P<assigned>(?=\s*(?:=(?!=)|(?:[-+*/%&|^]|<<|>>)=)))?"
)
_STRUCT = re.compile(r"\b(?:struct|class|union)\b[^;{}()]*\{")
_MEMBER = re.compile(rf"[\w>*&,\]]\s*\b(?P<name>{_NAME})\s*[;,=\[{{]")


def swizzle_lists(*texts: str) -> str:
    """The swizzles of these texts, without comments, as the lists that vector_members.h takes."""
    names = {name for text in texts for match in _SWIZZLE.finditer(text) if (name := match["name"])}
    lines = []
    for size in (2, 3, 4):
        places = {name: [_COMPONENTS[letter] for letter in name] for name in sorted(names)}
        entries = [f"S({name}, {', '.join(map(str, at))})" for name, at in places.items() if max(at) < size]
        lines.append(f"#define MSL_SWIZZLES_{size}(S) {' '.join(entries)}".rstrip() + "\n")
    return "".join(lines)


def swizzles_as_calls(text: str, own: frozenset[str] = frozenset()) -> str:
    """The text, without comments, with `v.zyx()` for `v.zyx`, and where that is assigned to `v.assigned_zyx()`.

    own: names that are members of the kernel's structs, and stay as they are.
    """

    def call(match: re.Match[str]) -> str:
        if match["name"] in own:
            return match[0]
        prefix = "assigned_" if match["assigned"] is not None else ""
        return f"{match['access']}{match['blank']}{prefix}{match['name']}()"

    return _SWIZZLE.sub(call, text)


def own_members(*texts: str) -> frozenset[str]:
    """Members of the kernel's own structs that are called like a swizzle."""
    return frozenset(name for text in texts for body in _struct_bodies(text) for name in _declared(body))


def _struct_bodies(text: str) -> Iterator[str]:
    """What stands between the braces of each struct, without the bodies of its functions."""
    for match in _STRUCT.finditer(text):
        depth, kept = 1, []
        for character in text[match.end() :]:
            depth += (character == "{") - (character == "}")
            if depth == 0:
                break
            kept.append(character if depth == 1 else " ")
        yield "".join(kept)


def _declared(body: str) -> Iterator[str]:
    for match in _MEMBER.finditer(body):
        yield match["name"]
