"""From a kernel to a C++ file: the shim's headers, the kernel's own text with its line numbers, and an entry point."""

from __future__ import annotations

import re
from collections.abc import Callable

from .findings import Finding
from .kernel import Kernel
from .reserved import NEVER, NO_NAMES, reserved_names
from .signature import Signature

# `threadgroup float a[8][9], b;` but not `threadgroup float* p` and not `device`, `const threadgroup T*`.
_DECLARATION = re.compile(
    r"(?<![\w:<,(])threadgroup\s+"
    r"(?P<type>(?:const\s+)?[A-Za-z_][\w:]*(?:\s*<[^;{}()=]*?>)?)\s+"
    r"(?P<names>[A-Za-z_]\w*(?:\s*\[[^\];]*\])*(?:\s*,\s*[A-Za-z_]\w*(?:\s*\[[^\];]*\])*)*)\s*;"
)
_DECLARATOR = re.compile(r"(?P<name>[A-Za-z_]\w*)(?P<extents>(?:\s*\[[^\]]*\])*)")
_POINTER_OR_DECLARATION = re.compile(r"\bthreadgroup\b(?P<rest>[^;,(){}=]*)")
_MEETING = re.compile(
    r"\b(?:simd|quad|simdgroup|threadgroup)_(?!index|position|vote\b|float|half|bfloat|matrix)\w+\s*(?:<[^>;]*>)?\("
)


def blank_comments(text: str) -> str:
    """The text with comments replaced by spaces: every line and column stays where it is."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.S)


# A string, which stays, or a number with a point or an exponent and without a suffix.
_UNSUFFIXED = re.compile(
    r'(?P<string>"(?:\\.|[^"\\\n])*")|(?<![\w.])(?:(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)(?![\w.])'
)


def single_precision(text: str) -> str:
    """The text, without comments, with an f behind every literal that is a double in C++ and a float in Metal."""
    return _UNSUFFIXED.sub(lambda match: match["string"] or match[0] + "f", text)


_LINE_DIRECTIVE = re.compile(r'^#line (?P<line>\d+) "(?P<file>[^"]+)"$', re.M)


def place(text: str, position: int, file: str, first_line: int) -> tuple[str, int]:
    """File and line of a position in a text that begins on `first_line` of `file`, as its #line directives say."""
    start, line = 0, first_line
    for match in _LINE_DIRECTIVE.finditer(text, 0, position):
        file, line, start = match["file"], int(match["line"]), match.end() + 1
    return file, line + text.count("\n", start, position)


def check_dialect(kernel: Kernel, knows_columns: bool) -> list[Finding]:
    """What can be said from the text alone: constructs that mean something else in C++, or nothing in Metal."""
    findings: list[Finding] = []
    header, body = blank_comments(kernel.header), blank_comments(kernel.source)
    header_place, body_place = (kernel.header_file, kernel.header_line), (kernel.source_file, kernel.source_line)
    for raw, text, start in ((kernel.header, header, header_place), (kernel.source, body, body_place)):
        for match in re.finditer(r"[^\x00-\x7f]+", raw):
            message = f"{match[0][:20]!a} is not ASCII"
            findings.append(Finding("not-ascii", message, *place(raw, match.start(), *start)))
        for position, word in reserved_names(text):
            message = f"`{word}` is a reserved word of the Metal Shading Language"
            findings.append(Finding("reserved-word", message, *place(text, position, *start)))
    last = kernel.header.rpartition("\n")[2]
    if "//" in last or last.lstrip().startswith("#"):
        message = f"`{last.strip()[:40]}` has no end of line, and MLX writes the kernel's signature behind it"
        findings.append(
            Finding("header-without-end", message, *place(kernel.header, len(kernel.header), *header_place))
        )
    for name in (*kernel.input_names, *kernel.output_names):
        if name in NEVER | NO_NAMES:
            message = f"an array is called `{name}`, a reserved word of the Metal Shading Language"
            findings.append(Finding("reserved-word", message, *body_place))
    for match in _DECLARATION.finditer(header):
        message = "a threadgroup variable is declared outside the kernel's body"
        findings.append(Finding("threadgroup-outside-kernel", message, *place(header, match.start(), *header_place)))
    rest = _DECLARATION.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), body)
    for match in _POINTER_OR_DECLARATION.finditer(rest):
        if not re.search(r"[*&]", match["rest"]) and not re.match(r"\s*_", match["rest"]):
            message = "this threadgroup declaration is not understood; write `threadgroup T name[N];`"
            findings.append(Finding("unsupported", message, *place(rest, match.start(), *body_place)))
    if not knows_columns:
        for text, start in ((header, header_place), (body, body_place)):
            for line in re.finditer(r"^.*$", text, re.M):
                if len(_MEETING.findall(line.group())) > 1:
                    message = "more than one barrier or simdgroup operation on a line"
                    findings.append(Finding("ambiguous-place", message, *place(text, line.start(), *start)))
    return findings


def replace_declarations(body: str, replacement: Callable[[int, str, str], str]) -> str:
    """Replaces each threadgroup declarator by replacement(number, type with extents, name), keeping line numbers."""
    count = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        declarations = []
        for declarator in _DECLARATOR.finditer(match["names"]):
            count += 1
            extents = re.sub(r"\s", "", declarator["extents"])
            declarations.append(replacement(count, match["type"] + extents, declarator["name"]))
        return " ".join(declarations) + "\n" * match.group().count("\n")

    return _DECLARATION.sub(replace, blank_comments(body))


def _text(kernel: Kernel, signature: Signature, before: str, body: str, attributes: str) -> str:
    template = f"template <{signature.template_parameters}>\n" if signature.template_parameters else ""
    header, body = single_precision(blank_comments(kernel.header)), single_precision(body)
    return (
        f"{before}\n"
        f'#line {kernel.header_line} "{kernel.header_file}"\n{header}\n'
        f'#line 1 "generated"\n{template}{attributes}void msl_kernel({", ".join(signature.parameters)}) {{\n'
        f'#line {kernel.source_line} "{kernel.source_file}"\n{body}\n}}\n'
        '#line 1 "generated"\n'
    )


def runnable_source(kernel: Kernel, signature: Signature) -> str:
    """C++ whose `msl_entry` runs one thread of the kernel."""

    def allocate(number: int, ctype: str, name: str) -> str:
        return f'auto& {name} = msl::threadgroup_array<{ctype}>({number}, "{name}");'

    arguments = f"<{signature.template_arguments}>" if signature.template_arguments else ""
    before = '#include "metal_sim.h"\nusing namespace metal;'
    body = replace_declarations(kernel.source, allocate)
    return _text(kernel, signature, before, body, "__attribute__((noinline)) static ") + (
        'extern "C" MSL_UNCHECKED void msl_entry(void** b, const MslThread* t) {\n'
        "  (void)b, (void)t;\n"
        f"  msl_kernel{arguments}({', '.join(signature.arguments)});\n}}\n"
    )


def lint_source(kernel: Kernel, signature: Signature) -> str:
    """The kernel in clang's real address spaces, for -fsyntax-only."""

    def declare(number: int, ctype: str, name: str) -> str:
        base, bracket, extents = ctype.partition("[")
        return f"extern threadgroup {base} {name}{bracket}{extents};"  # what has constructors needs none of them here

    body = replace_declarations(kernel.source, declare)
    arguments = signature.template_arguments
    instance = f"template decltype(msl_kernel<{arguments}>) msl_kernel<{arguments}>;\n" if arguments else ""
    return _text(kernel, signature, '#include "lint.h"', body, "") + instance
