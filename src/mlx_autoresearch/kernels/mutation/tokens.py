"""A kernel's text as tokens, each with its place. Comments, directives and what only CUDA compiles are left out."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mlx_autoresearch.simulator.translation import blank_comments

_TOKEN = re.compile(
    r"""(?P<name>[A-Za-z_]\w*)
    |(?P<number>0[xX][\da-fA-F]+[uUlL]*|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\w*)
    |(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    |(?P<symbol>\.\.\.|<<=|->|\+\+|--|<<|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|::|\S)""",
    re.X,
)
_MACRO = re.compile(r"\s*#\s*define\s+\w+(?:\([^)]*\))?[ \t]")
_IF_CUDA = re.compile(r"#\s*(?:ifdef\s+|if\s+defined\s*\(?\s*)(?:MSL_CUDA|MSL_TENSOR_CORES)\b")
_UNLESS_CUDA = re.compile(r"#\s*(?:ifndef\s+|if\s+!\s*defined\s*\(?\s*)(?:MSL_CUDA|MSL_TENSOR_CORES)\b")


@dataclass(frozen=True)
class Token:
    """A name, number, string or symbol, and where it stands. `>` is always alone: two may close two templates."""

    kind: str
    text: str
    begin: int
    end: int


def blank_cuda(text: str) -> str:
    """The text, without comments, with spaces for what only CUDA compiles: every line where it was."""
    lines, hidden = text.split("\n"), []  # of each #if that is open, whether its lines are CUDA's
    for i, line in enumerate(lines):
        directive = line.strip()
        if directive.startswith("#") and re.match(r"#\s*if", directive):
            hidden.append(True if _IF_CUDA.match(directive) else False if _UNLESS_CUDA.match(directive) else None)
        elif re.match(r"#\s*el", directive) and hidden:
            hidden[-1] = None if hidden[-1] is None else not hidden[-1]
        elif re.match(r"#\s*endif", directive) and hidden:
            hidden.pop()
        elif True in hidden:
            lines[i] = " " * len(line)
    return "\n".join(lines)


def blank(text: str) -> str:
    """The text with spaces for comments and for what only CUDA compiles."""
    return blank_cuda(blank_comments(text))


def tokenize(text: str) -> tuple[list[Token], list[list[Token]]]:
    """The tokens of a blanked text without its directives; and those of each macro's replacement."""
    code, macros, position = list(text), [], 0
    for line in re.findall(r"(?:[^\n]*\\\n)*[^\n]*\n?", text):
        if line.lstrip().startswith("#"):
            if match := _MACRO.match(line):
                macros.append(_tokens(line.replace("\\\n", "  "), match.end(), position))
            code[position : position + len(line)] = re.sub(r"[^\n]", " ", line)
        position += len(line)
    return _tokens("".join(code), 0, 0), macros


def _tokens(text: str, start: int, offset: int) -> list[Token]:
    return [
        Token(match.lastgroup or "", match.group(), match.start() + offset, match.end() + offset)
        for match in _TOKEN.finditer(text, start)
    ]
