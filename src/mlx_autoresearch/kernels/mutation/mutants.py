"""The mutants of a kernel: all of them, and a sample that is spread evenly over its lines and the operators."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mlx_autoresearch.kernels.description import KernelFile
from mlx_autoresearch.simulator.signature import template_value
from mlx_autoresearch.simulator.translation import place

from .operators import OPERATORS, Text
from .sites import Scope, Site, sites
from .statements import parse

ONE_CASE = "one-case"  # the operator that makes another one's mutation depend on a template argument
_BASES = ("arithmetic", "drop-term", "constant", "sign")


@dataclass(frozen=True)
class Mutant:
    """A kernel with one small change: `was`, at a place of its text, is `now` something else."""

    file: KernelFile
    part: str  # of the kernel: "header" or "source"
    begin: int
    end: int
    operator: str
    now: str

    @property
    def was(self) -> str:
        """The text that was there."""
        return getattr(self.file.kernel, self.part)[self.begin : self.end]

    @property
    def place(self) -> tuple[str, int]:
        """File and line."""
        kernel = self.file.kernel
        start = {"header": (kernel.header_file, kernel.header_line), "source": (kernel.source_file, kernel.source_line)}
        return place(getattr(kernel, self.part), self.begin, *start[self.part])

    @property
    def line(self) -> str:
        """The line of the text on which the change begins, without indentation."""
        text = getattr(self.file.kernel, self.part)
        return text[text.rfind("\n", 0, self.begin) + 1 :].split("\n", 1)[0].strip()

    @property
    def change(self) -> tuple[str, str]:
        """What was there and what is there now, each on one line."""
        return " ".join(self.was.split()), " ".join(self.now.split())

    @property
    def mutated(self) -> KernelFile:
        """The kernel with the change."""
        text = getattr(self.file.kernel, self.part)
        edited = text[: self.begin] + self.now + text[self.end :]
        return replace(self.file, kernel=replace(self.file.kernel, **{self.part: edited}))


def mutants(file: KernelFile) -> tuple[list[Mutant], list[tuple[str, int]]]:
    """Every mutant, each text once, in the order of the text; and the places that could not be read."""
    kernel = file.kernel
    found: dict[tuple[str, int, int, str], Mutant] = {}
    unread = []
    given = _template_arguments(file)
    types = tuple(name for name, values in given.items() if not isinstance(values[0], int))
    numbers = tuple(name for name in given if name not in types)
    arguments = {*kernel.input_names, *kernel.output_names, *numbers}
    for part, start in (
        ("header", (kernel.header_file, kernel.header_line)),
        ("source", (kernel.source_file, kernel.source_line)),
    ):
        text = getattr(kernel, part)
        tree, skipped = parse(text, set(types) if part == "source" else set(), arguments)
        unread += [place(text, position, *start) for position in skipped]
        scope = Scope(types=types, values=numbers) if part == "source" else Scope()
        tree = replace(tree, op="body" if part == "source" else "")
        for site in sites(tree, scope):
            for operator, now in _changes(site, Text(text), file, given):
                node = site.node
                if " ".join(now.split()) != " ".join(text[node.begin : node.end].split()):
                    key = (part, node.begin, node.end, now)
                    found.setdefault(key, Mutant(file, part, node.begin, node.end, operator, now))
    return list(found.values()), unread


def _changes(site: Site, text: Text, file: KernelFile, given: dict[str, list]) -> Iterator[tuple[str, str]]:
    """Operators with what they put in the node's place."""
    bases = []
    for name, operator in OPERATORS.items():
        for now in operator(site, text):
            yield name, now
            if name in _BASES and site.node.kind != "number" and site.runs:
                bases.append(now)
    if bases:
        chosen = random.Random(f"{file.name} {text(site.node)}")
        for guard in _guards(site.scope, file, given):
            yield ONE_CASE, f"({guard} ? ({chosen.choice(bases)}) : ({text(site.node)}))"


def _template_arguments(file: KernelFile) -> dict[str, list]:
    """Of each template argument the values that the cases give it."""
    found: dict[str, list] = {}
    for sizes in file.description.cases:
        for name, value in file.launch(file.resolve(sizes)).template:
            found.setdefault(name, [])
            if value not in found[name]:
                found[name].append(value)
    return found


def _guards(scope: Scope, file: KernelFile, given: dict[str, list]) -> list[str]:
    """Conditions that hold for one template argument, or for one type together with one size of the cases."""
    alone = {
        name: [
            f"metal::is_same_v<{name}, {template_value(value)}>" if name in scope.types else f"{name} == {int(value)}"
            for value in values
        ]
        for name, values in given.items()
        if name in (*scope.types, *scope.values)
    }
    single = [guard for guards in alone.values() if len(guards) > 1 for guard in guards]
    chosen = {size for sizes in (*file.description.cases, file.description.defaults) for size in sizes}
    sizes = [n for n in alone if n in scope.values and file.description.template[n] in chosen and len(alone[n]) > 1]
    pairs = [f"{a} && {b}" for t in alone if t in scope.types for a in alone[t] for n in sizes for b in alone[n]]
    return single + pairs


def sample(found: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """So many of them, the same for the same seed: each next one of the operator and line that had fewest so far."""
    order = list(found)
    random.Random(seed).shuffle(order)
    operators: Counter[str] = Counter()
    lines: Counter[tuple[str, int]] = Counter()
    groups: dict[tuple[str, tuple[str, int]], list[Mutant]] = {}
    for mutant in order:
        groups.setdefault((mutant.operator, mutant.place), []).append(mutant)
    taken: list[Mutant] = []
    while groups and len(taken) < count:
        operator, line = key = min(groups, key=lambda key: (operators[key[0]], lines[key[1]]))
        operators[operator] += 1
        lines[line] += 1
        taken.append(groups[key].pop())
        if not groups[key]:
            del groups[key]
    return taken
