"""Deletes each barrier, bounds guard and mask term of a kernel, one at a time: `kernels verify` must notice every one.

    python tests/kernels/deletions.py [NAME ...]     prints the table of custom_kernels/README.md

Mechanical: every barrier; every term of every condition of `if`, `?:` and `bool x = ...`, whatever it guards; and
either side of every `min` and `max` of integers. What only saves work, as the limits of a loop over blocks do, is no
guard: its deletion changes no result, and the table says how many accesses it costs.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from mlx_autoresearch.kernels.description import KernelFile
from mlx_autoresearch.kernels.registry import find_kernel, kernel_names
from mlx_autoresearch.kernels.verify import SEEDS, run_case
from mlx_autoresearch.simulator.translation import blank_comments, place

_BARRIER = re.compile(r"\b(?:threadgroup|simdgroup)_barrier\([^;]*\);")
_IF = re.compile(r"\bif\s*(?:constexpr\s*)?\(")
_BOOL = re.compile(r"\bbool\s+\w+\s*=\s*(?=[^=])")
_CLAMP = re.compile(r"(?<![\w:])(?:metal::)?(?:min|max)\(")
_INTEGERS = re.compile(r"\b(?:int|uint|long|ulong|for)\b")


@dataclass(frozen=True)
class Deletion:
    """A kernel with one thing less: where it stood, the code it stood in, and what is left of that."""

    whole: KernelFile
    file: KernelFile
    place: tuple[str, int]
    was: str
    kept: str

    @property
    def what(self) -> tuple[tuple[str, int], str, str]:
        """The same for every kernel that includes the line."""
        return self.place, self.was, self.kept

    def found(self) -> str | None:
        """What `kernels verify` finds first, in the order of its cases; or what it costs; None if neither."""
        before = after = 0
        for sizes in self.file.description.cases:
            for seed in SEEDS:
                report = run_case(self.file, sizes, seed, seconds=10.0)
                if report.findings:
                    return report.findings[0].what
                after += report.accesses
                before += run_case(self.whole, sizes, seed).accesses
        return f"no guard: {after / before - 1:+.0%} accesses" if after != before else None


def deletions(file: KernelFile) -> list[Deletion]:
    """Every deletion in a kernel's body, and in its header with what that includes."""
    found = []
    kernel = file.kernel
    starts = {"header": (kernel.header_file, kernel.header_line), "source": (kernel.source_file, kernel.source_line)}
    for part, start in starts.items():
        text = getattr(kernel, part)
        blank = _blank_cuda(blank_comments(text))
        for begin, end, kept in sorted(set(_edits(blank))):
            edited = replace(kernel, **{part: text[:begin] + kept + text[end:]})
            was = " ".join(blank[begin:end].split())
            found.append(Deletion(file, replace(file, kernel=edited), place(blank, begin, *start), was, kept))
    return found


def _blank_cuda(text: str) -> str:
    """The text without what only CUDA compiles, every line where it was."""
    lines, hidden = text.split("\n"), False
    for i, line in enumerate(lines):
        directive = line.strip()
        if directive.startswith(("#ifdef MSL_CUDA", "#ifdef MSL_TENSOR_CORES")):
            hidden = True
        elif directive.startswith(("#else", "#endif")):
            hidden = False
        elif hidden:
            lines[i] = " " * len(line)
    return "\n".join(lines)


def _edits(text: str) -> Iterator[tuple[int, int, str]]:
    """(begin, end, what takes its place)."""
    for match in _BARRIER.finditer(text):
        yield match.start(), match.end(), ";"
    for begin, end in _conditions(text):
        yield from _terms(text, begin, end)
    for match in _CLAMP.finditer(text):
        line = text[text.rfind("\n", 0, match.start()) + 1 : match.end()]
        if _INTEGERS.search(line) and "float" not in line:
            close = _closing(text, match.end() - 1)
            for begin, end in _split(text, match.end(), close, ","):
                yield match.start(), close + 1, f"({text[begin:end].strip()})"


def _conditions(text: str) -> Iterator[tuple[int, int]]:
    for match in _IF.finditer(text):
        yield match.end(), _closing(text, match.end() - 1)
    for match in _BOOL.finditer(text):
        yield match.end(), text.index(";", match.end())
    for match in re.finditer(r"\?", text):
        yield _start_of_condition(text, match.start()), match.start()


def _terms(text: str, begin: int, end: int) -> Iterator[tuple[int, int, str]]:
    """The condition without each of its conjuncts, and without each alternative inside them."""
    begin, end = _stripped(text, begin, end)
    terms = _split(text, begin, end, "&&")
    if len(terms) > 1:
        for i in range(len(terms)):
            rest = [text[b:e].strip() for j, (b, e) in enumerate(terms) if j != i]
            yield begin, end, " && ".join(rest)
            yield from _terms(text, *terms[i])
        return
    alternatives = _split(text, begin, end, "||")
    if len(alternatives) > 1:
        for i in range(len(alternatives)):
            rest = [text[b:e].strip() for j, (b, e) in enumerate(alternatives) if j != i]
            yield begin, end, " || ".join(rest)
        return
    before = text[:begin].rstrip()
    inside_a_conjunction = before.endswith("&&") or text[end:].lstrip().startswith("&&")
    if not inside_a_conjunction:
        yield begin, end, "true"


def _stripped(text: str, begin: int, end: int) -> tuple[int, int]:
    """Without spaces, and without parentheses round the whole."""
    while True:
        while text[begin].isspace():
            begin += 1
        while text[end - 1].isspace():
            end -= 1
        if text[begin] == "(" and _closing(text, begin) == end - 1:
            begin, end = begin + 1, end - 1
        else:
            return begin, end


def _closing(text: str, opening: int) -> int:
    depth = 0
    for i in range(opening, len(text)):
        depth += (text[i] in "([{") - (text[i] in ")]}")
        if depth == 0:
            return i
    raise ValueError("unbalanced")


def _split(text: str, begin: int, end: int, separator: str) -> list[tuple[int, int]]:
    """The parts between separators that stand in no parentheses."""
    parts, depth, start, i = [], 0, begin, begin
    while i < end:
        depth += (text[i] in "([{") - (text[i] in ")]}")
        if depth == 0 and text.startswith(separator, i):
            parts.append((start, i))
            i += len(separator)
            start = i
        else:
            i += 1
    return [*parts, (start, end)]


def _start_of_condition(text: str, end: int) -> int:
    """Where the condition of a `?` begins: after the `=`, `(`, `,`, `;`, `:` or `return` that precedes it."""
    depth = 0
    for i in range(end - 1, -1, -1):
        depth += (text[i] in ")]}") - (text[i] in "([{")
        alone = text[i] == "=" and text[i - 1] not in "=<>!" and text[i + 1] != "="
        if depth < 0 or (depth == 0 and (text[i] in ",;:{}?" or alone)):
            return i + 1
        if depth == 0 and text.startswith("return ", i):
            return i + 7
    raise ValueError("no beginning")


def row(deletion: Deletion) -> str:
    """A line of the table, but for its last column."""
    file, line = deletion.place
    escaped = [code.replace("|", "\\|") for code in (deletion.was, deletion.kept)]
    kept = "" if deletion.kept == ";" else f" → `{escaped[1]}`"
    return f"| {deletion.file.name} | {file}:{line} | `{escaped[0]}`{kept} | "


def main() -> None:
    jobs = [deletion for name in sys.argv[1:] or kernel_names() for deletion in deletions(find_kernel(name))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(zip(jobs, pool.map(Deletion.found, jobs), strict=True))
    # A function of a shared header that one kernel does not call, or whose result it does not use, another one does.
    by = {deletion.what: deletion.file.name for deletion, found in results if found}
    print("| kernel | line | deleted | found |\n| --- | --- | --- | --- |")
    missed = 0
    for deletion, found in results:
        if found is None and deletion.what in by:
            found = f"no effect here, found in {by[deletion.what]}"
        print(f"{row(deletion)}{found or '**nothing**'} |")
        missed += found is None
    print(f"\n{len(jobs)} deletions, {missed} not found", file=sys.stderr)
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
