"""Names that Metal's compiler does not take: words that are free in C++ and reserved in the Metal Shading Language.

Without this a kernel passes here and does not compile on any Mac. Source: Metal Shading Language Specification,
sections 2 (types) and 4 (address spaces), 5 (functions); C++'s own reserved words are refused by every compiler.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# Qualifiers of functions and address spaces that a kernel's body and header have no use for: never to be written.
NEVER = frozenset(
    ("vertex", "fragment", "kernel", "ray_data", "object_data", "threadgroup_imageblock", "patch_control_point")
)
# To be used, but not as the name of anything.
NO_NAMES = frozenset(("device", "constant", "thread", "threadgroup", "half", "bfloat", "as_type"))

# Words after which a type or a cast begins: `return half(x)` declares nothing.
_NOT_TYPES = (
    frozenset(("return", "case", "else", "do", "operator", "sizeof", "const", "constexpr", "static", "volatile"))
    | frozenset(("inline", "explicit", "METAL_FUNC", "template"))
    | (NO_NAMES - {"half", "bfloat", "as_type"})
)
_WORD = re.compile(rf"\b(?:{'|'.join(sorted(NEVER | NO_NAMES))})\b")
_MEMBER_OR_MACRO = re.compile(r"(?:\.|->|#[ \t]*define|#[ \t]*undef)\s*$")
_WORD_BEFORE = re.compile(r"([A-Za-z_]\w*)\s+$")
_TYPE_BEFORE = re.compile(r"[>*&]\s*$")  # or an operator: then a call follows, or a cast
_ENDS_A_NAME = re.compile(r"\s*(?:[=;,)\[>]|:(?!:))")
_OPENS_A_CALL = re.compile(r"\s*[({]")


def reserved_names(text: str) -> Iterator[tuple[int, str]]:
    """Position and word of every reserved word that stands as a name in a text without comments."""
    for match in _WORD.finditer(text):
        if match[0] in NEVER or _is_name(text, match):
            yield match.start(), match[0]


def _is_name(text: str, match: re.Match[str]) -> bool:
    """Whether a word that has its uses is declared, defined or taken as a member here."""
    before = text[max(0, match.start() - 100) : match.start()]
    if _MEMBER_OR_MACRO.search(before):
        return True
    ends = _ENDS_A_NAME.match(text, match.end()) is not None
    if word := _WORD_BEFORE.search(before):
        return word[1] not in _NOT_TYPES and (ends or _OPENS_A_CALL.match(text, match.end()) is not None)
    return ends and _TYPE_BEFORE.search(before) is not None
