"""Deletes each barrier, bounds guard and mask term of a kernel, one at a time: `kernels verify` must notice every one.

    python tests/kernels/deletions.py [NAME ...]     prints the table of custom_kernels/README.md

Mechanical: every barrier; every term of every condition of `if`, `?:` and `bool x = ...`, whatever it guards; and
either side of every `min` and `max` of integers. What only saves work, as the limits of a loop over blocks do, is no
guard: its deletion changes no result, and the table says whether it costs accesses.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from mlx_autoresearch.kernels.description import KernelFile
from mlx_autoresearch.kernels.mutation.operators import Text
from mlx_autoresearch.kernels.mutation.sites import Scope, Site, bare, sites
from mlx_autoresearch.kernels.mutation.statements import parse
from mlx_autoresearch.kernels.mutation.syntax import Node
from mlx_autoresearch.kernels.mutation.tokens import blank
from mlx_autoresearch.kernels.registry import find_kernel, kernel_names
from mlx_autoresearch.kernels.verify import SEEDS, run_case
from mlx_autoresearch.simulator.translation import place

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
        return f"no guard: {'more' if after > before else 'fewer'} accesses" if after != before else None


def deletions(file: KernelFile) -> list[Deletion]:
    """Every deletion in a kernel's body, and in its header with what that includes."""
    found = []
    kernel = file.kernel
    starts = {"header": (kernel.header_file, kernel.header_line), "source": (kernel.source_file, kernel.source_line)}
    for part, start in starts.items():
        whole = getattr(kernel, part)
        text = Text(blank(whole))
        tree, _ = parse(text.whole, set(), {*kernel.input_names, *kernel.output_names})
        edits = {edit for site in sites(tree, Scope()) for edit in _edits(site, text)}
        for begin, end, kept in sorted(edits):
            edited = replace(kernel, **{part: whole[:begin] + kept + whole[end:]})
            was = " ".join(text.whole[begin:end].split())
            found.append(Deletion(file, replace(file, kernel=edited), place(text.whole, begin, *start), was, kept))
    return found


def _edits(site: Site, text: Text) -> Iterator[tuple[int, int, str]]:
    """(begin, end, what takes its place)."""
    node, parent = site.node, site.parent
    if node.kind == "expression" and "_barrier(" in text(node):
        yield node.begin, node.end, ";"
    is_condition = parent.kind in ("if", "conditional") and node is parent.parts[0]
    if is_condition or (parent.kind == "initialiser" and bare(site.inside[2].op) == "bool"):
        yield from _terms(node, text)
    if node.kind == "call" and node.op.removeprefix("metal::") in ("min", "max"):
        line = text.whole[text.whole.rfind("\n", 0, node.begin) + 1 : node.begin]
        if _INTEGERS.search(line) and "float" not in line:
            for argument in node.parts[1:]:
                yield node.begin, node.end, f"({text(argument)})"


def _terms(node: Node, text: Text, alone: bool = True) -> Iterator[tuple[int, int, str]]:
    """The condition without each of its conjuncts, and without each alternative inside them."""
    while node.kind == "parentheses":
        node = node.parts[0]
    for operator in ("&&", "||"):
        terms = _operands(node, operator)
        if len(terms) > 1:
            for term in terms:
                rest = f" {operator} ".join(text(other) for other in terms if other is not term)
                yield node.begin, node.end, rest
                if operator == "&&":
                    yield from _terms(term, text, alone=False)
            return
    if alone:
        yield node.begin, node.end, "true"


def _operands(node: Node, operator: str) -> list[Node]:
    if node.kind == "binary" and node.op == operator:
        return [term for part in node.parts for term in _operands(part, operator)]
    return [node]


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
