"""The static pass: address spaces, which a CPU does not have and clang does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .build import Diagnostic, check_syntax
from .compilers import Compiler, find_compiler
from .findings import Finding, merge
from .kernel import Kernel
from .signature import Input, Template, make_signature
from .translation import blank_comments, check_dialect, lint_source, place

_SCALARS = "bool|u?char|u?short|u?int|u?long|float|half|bfloat|u?int(?:8|16|32|64)_t|size_t|float16_t|bfloat16_t|void"
# In a type, not in a sentence. `__private` is of no use: every variable is.
_SPACE = re.compile(r"address space|'[^']*\b__(?:global|constant|local|generic)\b[^']*'")


@dataclass(frozen=True)
class LintResult:
    """Findings, and what the pass could not judge: a missing compiler, or a construct that it does not understand."""

    findings: list[Finding]
    unchecked: list[str]


def _unqualified_pointers(text: str, file: str, first_line: int, names: set[str]) -> list[Finding]:
    """`float* p` and `T& x` without device, constant, threadgroup or thread: Metal rejects them, C++ does not."""
    text = blank_comments(text)
    # A name that is a type in one function may be a number in another, where `(T * n)` is a product.
    values = re.findall(r"\b(?:u?int|u?long|u?short|size_t|u?int\d+_t|float|bool|auto)\s+(\w+)", text)
    templates = (names | set(re.findall(r"\btypename\s+(\w+)", text))) - set(values)
    types = "|".join([_SCALARS + r"|(?:u?char|u?short|u?int|u?long|float|half|bfloat|bool)[234]", *sorted(templates)])
    # A type's name before `*` or `&` can only be a declaration, or a cast.
    pattern = re.compile(
        rf"(?:^|[;{{}}(,])\s*(?P<before>(?:(?:const|volatile|static|constexpr)\s+)*)(?P<type>{types})\s*(?:const\s*)?[*&]",
        re.M,
    )
    findings = []
    for match in pattern.finditer(text):
        message = f"`{match['type']}{match.group()[-1]}` does not name its address space"
        findings.append(Finding("address-space", message, *place(text, match.start("type"), file, first_line)))
    return findings


# What OpenCL refuses and Metal does not: `half4 * float`, and conversions of vectors by other names than `half4(v)`.
_OPENCL_ONLY = re.compile(
    r"has greater rank|from vector '.* to vector '|excess elements in (?:scalar|vector) initializer"
)


def _is_about_spaces(diagnostic: Diagnostic) -> bool:
    text = diagnostic.message + diagnostic.notes
    if "constant expression" in diagnostic.message:  # its notes show the type of what is none
        return False
    # C++ cannot copy a struct out of an address space by itself; Metal can.
    return bool(_SPACE.search(text)) and "implicit copy" not in text and "implicit move" not in text


def _kind(diagnostic: Diagnostic) -> str:
    text = diagnostic.message + diagnostic.notes
    if "non-kernel function variable cannot be declared in local" in text:
        return "unsupported"
    if "__generic" in text and "__private" in text:
        return "member-address-space"
    return "constant-address-space" if re.search(r"'[^']*\b__constant\b", text) else "address-space"


_STRUCT = re.compile(r"\b(?:struct|class)\s+(\w+)")


def _constructors(kernel: Kernel) -> set[tuple[str, int]]:
    """The lines of the kernel's constructors."""
    lines = set()
    header = (kernel.header, kernel.header_file, kernel.header_line)
    for raw, file, first in (header, (kernel.source, kernel.source_file, kernel.source_line)):
        text = blank_comments(raw)
        for name in set(_STRUCT.findall(text)):
            for match in re.finditer(rf"(?<![\w~.>:]){name}\s*\([^;{{}}]*\)[^;{{}}]*\{{", text):
                depth, end = 1, match.end()
                while depth and end < len(text):
                    depth += (text[end] == "{") - (text[end] == "}")
                    end += 1
                where, line = place(text, match.start(), file, first)
                lines |= {(where, line + i) for i in range(text.count("\n", match.start(), end) + 1)}
    return lines


def _check(
    kernel: Kernel, inputs: Sequence[Input], output_dtypes: Sequence[Any], template: Template, compiler: Compiler
) -> tuple[list[Diagnostic], list[Diagnostic]]:
    """Errors about address spaces, and errors that show what the pass does not understand."""
    source = lint_source(kernel, make_signature(kernel, inputs, output_dtypes, template))
    said = check_syntax(source, kernel.name, compiler)
    errors = [entry for entry in said if entry.severity == "error" and not _OPENCL_ONLY.search(entry.message)]
    if any(
        _kind(entry) == "member-address-space" for entry in errors
    ):  # a constructor's object is where it is declared
        exempt = _constructors(kernel)
        errors = [e for e in errors if _kind(e) != "member-address-space" or e.place_in(kernel.files) not in exempt]
    return [e for e in errors if _is_about_spaces(e)], [e for e in errors if not _is_about_spaces(e)]


def lint(
    kernel: Kernel,
    inputs: Sequence[Input],
    output_dtypes: Sequence[Any],
    template: Template = (),
    may_be_small: Sequence[bool] | None = None,
    compiler: str | None = None,
) -> LintResult:
    """Checks a kernel's address spaces for inputs of both sizes: 8 elements and more (`device`) and fewer (`constant`).

    `may_be_small[i]` says whether input i may have fewer than 8 elements in other calls; by default only this call
    is considered. Without clang only what the text shows is found; `unchecked` says so.
    """
    chosen = find_compiler(compiler)
    findings = check_dialect(kernel, knows_columns=chosen.is_clang)
    names = {name for name, value in template if not isinstance(value, int)}
    findings += _unqualified_pointers(kernel.header, kernel.header_file, kernel.header_line, names)
    findings += _unqualified_pointers(kernel.source, kernel.source_file, kernel.source_line, names)
    if not chosen.is_clang:
        return LintResult(merge(findings), list(chosen.unchecked[:1]))

    small = list(may_be_small) if may_be_small is not None else [False] * len(inputs)
    # Those that may be small are large here, and small one by one below; the others stay as they are.
    large = [replace(given, small=given.small and not may) for given, may in zip(inputs, small, strict=True)]
    wrong, unread = _check(kernel, large, output_dtypes, template, chosen)
    findings += [Finding(_kind(entry), entry.message, *entry.place_in(kernel.files)) for entry in wrong]
    known = {entry.place_in(kernel.files) for entry in wrong}
    for i, given in enumerate(large):
        if not small[i] or given.ndim == 0:  # a number is a reference to constant memory, whatever happens
            continue
        variant = [*large[:i], replace(given, small=True), *large[i + 1 :]]
        trapped, _ = _check(kernel, variant, output_dtypes, template, chosen)
        for entry in trapped:
            if (where := entry.place_in(kernel.files)) not in known:
                message = f"with fewer than 8 elements in {kernel.input_names[i]}: {entry.message}"
                findings.append(Finding("constant-address-space", message, *where))
    places = [":".join(map(str, entry.place_in(kernel.files))) for entry in unread]
    unchecked = [
        f"{where} is not understood by the static pass ({entry.message})"
        for where, entry in zip(places, unread, strict=True)
    ]
    return LintResult(merge(findings), unchecked)
