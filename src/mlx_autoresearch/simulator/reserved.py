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
# What Metal's library declares and the simulator lacks. MLX writes `using namespace metal;` in front of kernels, so
# that a function, type or variable of one of these names outside of functions is ambiguous wherever it is used.
NO_GLOBAL_NAMES = frozenset(
    (
        *(f"texture{kind}" for kind in ("1d", "1d_array", "2d", "2d_array", "2d_ms", "2d_ms_array", "3d", "cube")),
        *(f"depth{kind}" for kind in ("2d", "2d_array", "2d_ms", "2d_ms_array", "cube", "cube_array")),
        *("texturecube_array", "texture_buffer", "sampler", "access", "coord", "filter", "min_filter", "mag_filter"),
        *("mip_filter", "address", "s_address", "t_address", "r_address", "compare_func", "border_color"),
        *("bias", "level", "gradient2d", "gradient3d", "gradientcube", "min_lod_clamp", "lod_clamp", "max_anisotropy"),
        *("interpolant", "imageblock", "mesh", "mesh_grid_properties", "primitive_topology", "command_buffer"),
        *(
            "compute_command",
            "render_command",
            "compute_pipeline_state",
            "render_pipeline_state",
            "uniform",
            "array_ref",
        ),
        *("visible_function_table", "intersection_function_table", "raytracing", "r8unorm", "rgba8unorm", "rgb10a2"),
    )
)

# Words after which a type or a cast begins: `return half(x)` declares nothing.
_NOT_TYPES = (
    frozenset(("return", "case", "else", "do", "operator", "sizeof", "const", "constexpr", "static", "volatile"))
    | frozenset(("inline", "explicit", "METAL_FUNC", "template"))
    | (NO_NAMES - {"half", "bfloat", "as_type"})
)
_WORD = re.compile(rf"\b(?:{'|'.join(sorted(NEVER | NO_NAMES))})\b")
_GLOBAL_WORD = re.compile(rf"\b(?:{'|'.join(sorted(NO_GLOBAL_NAMES))})\b")
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


def reserved_global_names(header: str) -> Iterator[tuple[int, str]]:
    """Position and word of each name of Metal's library that a header, without comments, declares globally."""
    inside = position = 0
    for match in _GLOBAL_WORD.finditer(header):
        between = header[position : match.start()]
        inside += sum(between.count(opens) for opens in "{(<[") - sum(between.count(closes) for closes in "})>]")
        position = match.start()
        if inside == 0 and _is_name(header, match) and not _MEMBER_OR_MACRO.search(header[: match.start()]):
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
