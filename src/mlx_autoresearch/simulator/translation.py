"""From a kernel to a C++ file: the shim's headers, the kernel's own text with its line numbers, and an entry point."""

from __future__ import annotations

import re

from .declarations import Replacement, declarations, expand_macros, not_understood, replace_declarations
from .findings import Finding
from .kernel import Kernel
from .reserved import NEVER, NO_NAMES, reserved_global_names, reserved_names
from .signature import Signature
from .swizzles import own_members, swizzle_lists, swizzles_as_calls

_MEETING = re.compile(
    r"\b(?:simd|quad|simdgroup|threadgroup)_(?!index|position|vote\b|float|half|bfloat|matrix)\w+\s*(?:<[^>;]*>)?\("
)


def blank_comments(text: str) -> str:
    """The text with comments replaced by spaces: every line and column stays where it is."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.S)


# A string, which stays, or a number with a point or an exponent, and a suffix of Metal's or none.
_LITERAL = re.compile(
    r'(?P<string>"(?:\\.|[^"\\\n])*")|(?<![\w.])(?P<number>(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|'
    r"0[xX](?:[\da-fA-F]+\.?|[\da-fA-F]*\.[\da-fA-F]+)[pP][+-]?\d+)(?P<suffix>h|H|bf|BF)?(?![\w.])"
)


def literals(text: str) -> str:
    """The text, without comments, with literals as C++ has them: 0.5 is a float, 0.5h a half, 0.5bf a bfloat."""

    def written(match: re.Match[str]) -> str:
        if match["string"] is not None:
            return match["string"]
        number = match["number"] + "f"
        types = {"h": "half", "bf": "bfloat"}
        return f"{types[match['suffix'].lower()]}({number})" if match["suffix"] else number

    return _LITERAL.sub(written, text)


NOT_UNDERSTOOD = "this threadgroup declaration is not understood; write `threadgroup T name[N];`"

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
        for match in re.finditer(r"\batomic_thread_fence\b", text):
            message = "atomic_thread_fence: the simulator orders memory by barriers alone"
            findings.append(Finding("unsupported", message, *place(text, match.start(), *start)))
    for position, word in reserved_global_names(header):
        message = f"`{word}` is a name of Metal's library: whatever uses it finds both"
        findings.append(Finding("reserved-word", message, *place(header, position, *header_place)))
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
    for position in declarations(header):
        message = "a threadgroup variable is declared outside the kernel's body"
        findings.append(Finding("threadgroup-outside-kernel", message, *place(header, position, *header_place)))
    expanded = expand_macros(header, body)
    for position in not_understood(expanded):
        findings.append(Finding("unsupported", NOT_UNDERSTOOD, *place(expanded, position, *body_place)))
    if not knows_columns:
        for text, start in ((header, header_place), (body, body_place)):
            for line in re.finditer(r"^.*$", text, re.M):
                if len(_MEETING.findall(line.group())) > 1:
                    message = "more than one barrier or simdgroup operation on a line"
                    findings.append(Finding("ambiguous-place", message, *place(text, line.start(), *start)))
    return findings


def _text(kernel: Kernel, signature: Signature, before: str, header: str, body: str, attributes: str) -> str:
    template = f"template <{signature.template_parameters}>\n" if signature.template_parameters else ""
    return (
        f"{before}\n"
        f'#line {kernel.header_line} "{kernel.header_file}"\n{header}\n'
        f'#line 1 "generated"\n{template}{attributes}void msl_kernel({", ".join(signature.parameters)}) {{\n'
        f'#line {kernel.source_line} "{kernel.source_file}"\n{body}\n}}\n'
        '#line 1 "generated"\n'
    )


def _declared(kernel: Kernel, replacement: Replacement) -> tuple[str, str]:
    """Header and body, without comments: literals as C++ has them, threadgroup declarations replaced."""
    header, body = literals(blank_comments(kernel.header)), literals(blank_comments(kernel.source))
    return header, replace_declarations(expand_macros(header, body), replacement)


def as_cpp(kernel: Kernel, replacement: Replacement) -> tuple[str, str, str]:
    """What stands before the shim, header and body, as `_declared` with calls for swizzles."""
    texts = _declared(kernel, replacement)
    own = own_members(*texts)
    header, body = (swizzles_as_calls(text, own) for text in texts)
    return swizzle_lists(*texts), header, body


# Headers of the shim that few kernels need, and what names something in them.
_MORE = "extract_bits|insert_bits|absdiff|sincos|modf|frexp|ldexp|ilogb|nextafter|cross|distance|distance_squared"
_NOT_IN_LINT = {  # whose lint.h declares them all
    "fast.h": r"\b(?:fast|precise)\b",
    "more_math.h": rf"\b(?:{_MORE}|reflect|refract|faceforward)\b",
    "quads.h": r"\bquad_\w+",
}
_ON_DEMAND = {"float_matrices.h": r"\b(?:float|half)[234]x[234]\b|\bmatrix\s*<", "packing.h": r"\b(?:un)?pack_\w+\s*\("}


def _includes(main: str, on_demand: dict[str, str], *texts: str) -> str:
    headers = [main, *(h for h, names in on_demand.items() if any(re.search(names, text) for text in texts))]
    return "".join(f'#include "{header}"\n' for header in headers)


def runnable_source(kernel: Kernel, signature: Signature) -> str:
    """C++ whose `msl_entry` runs one thread of the kernel."""

    def allocate(number: int, ctype: str, alignment: str, name: str) -> str:
        given = f", {alignment}" if alignment else ""
        return f'auto& {name} = msl::threadgroup_array<{ctype}{given}>({number}, "{name}");'

    arguments = f"<{signature.template_arguments}>" if signature.template_arguments else ""
    lists, header, body = as_cpp(kernel, allocate)
    before = f"{lists}{_includes('metal_sim.h', _NOT_IN_LINT | _ON_DEMAND, header, body)}using namespace metal;"
    return _text(kernel, signature, before, header, body, "__attribute__((noinline)) static ") + (
        'extern "C" MSL_UNCHECKED void msl_entry(void** b, const MslThread* t) {\n'
        "  (void)b, (void)t;\n"
        f"  msl_kernel{arguments}({', '.join(signature.arguments)});\n}}\n"
    )


_SCALARS = ("float", "half", "bfloat", "int", "uint", "short", "ushort", "char", "uchar", "long", "ulong", "bool")
# A vector type's name followed by a parenthesis is a constructor, which the static pass's vectors do not have.
_CONSTRUCTORS = "".join(
    f"#define {packed}{scalar}{n}(...) metal::construct<{packed}{scalar}{n}>(__VA_ARGS__)\n"
    for scalar in _SCALARS
    for n in (2, 3, 4)
    for packed in ("", "packed_")
    if (packed, scalar) != ("packed_", "bool")
)


def lint_source(kernel: Kernel, signature: Signature) -> str:
    """The kernel in real address spaces, for check_syntax."""

    def declare(number: int, ctype: str, alignment: str, name: str) -> str:
        return f"auto& {name} = msl_declared<{ctype}>();"

    header, body = _declared(kernel, declare)
    arguments = signature.template_arguments
    instance = f"template decltype(msl_kernel<{arguments}>) msl_kernel<{arguments}>;\n" if arguments else ""
    return (
        _text(kernel, signature, _includes("lint.h", _ON_DEMAND, header, body) + _CONSTRUCTORS, header, body, "")
        + instance
    )
