"""Every place of a tree at which something can be changed, with what is visible there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from .syntax import Node

_INTEGERS = {"int", "uint", "long", "ulong", "short", "ushort", "size_t", "int32_t", "uint32_t", "int64_t", "uint64_t"}


@dataclass(frozen=True)
class Scope:
    """What is visible: variables with their types, the last first; types and values that templates are given."""

    variables: tuple[tuple[str, str], ...] = ()
    types: tuple[str, ...] = ()
    values: tuple[str, ...] = ()

    def with_variable(self, name: str, given: str) -> Scope:
        """And one more variable."""
        return replace(self, variables=((name, bare(given)), *self.variables))

    def type_of(self, name: str) -> str:
        """The type of a variable without its qualifiers; empty if unknown."""
        return next((given for known, given in self.variables if known == name), "")


@dataclass(frozen=True)
class Site:
    """A node, what is visible there, and the nodes that it stands in, the innermost first."""

    node: Node
    scope: Scope
    inside: tuple[Node, ...] = ()

    @property
    def parent(self) -> Node:
        """The node that it is a part of."""
        return self.inside[0]

    @property
    def runs(self) -> bool:
        """Whether it stands in a function, so that statements can be put there."""
        return self.inside[-1].op == "body" or any(node.kind == "function" for node in self.inside)


def bare(given: str) -> str:
    """A type without qualifiers: `const constant int` is int."""
    qualifiers = ("const", "constexpr", "constant", "thread", "device", "threadgroup", "static", "volatile")
    return " ".join(word for word in given.replace("*", " * ").replace("&", " ").split() if word not in qualifiers)


def is_integer(given: str) -> bool:
    """Whether a bare type is that of an index."""
    return given in _INTEGERS


def sites(root: Node, scope: Scope) -> Iterator[Site]:
    """Every node below the root."""
    yield from _parts(root, scope, ())


def _parts(node: Node, scope: Scope, inside: tuple[Node, ...]) -> Iterator[Site]:
    inside = (node, *inside)
    for part in node.parts:
        if part.kind == "parameter":
            name = part.parts[0].op
            if part.op in ("typename", "class"):
                scope = replace(scope, types=(*scope.types, name))
            elif node.kind == "template":
                scope = replace(scope, values=(*scope.values, name))
            else:
                scope = scope.with_variable(name, part.op)
            continue
        yield Site(part, scope, inside)
        yield from _parts(part, scope, inside)
        if part.kind == "declaration":
            for declarator in part.parts:
                scope = scope.with_variable(declarator.op, part.op)
