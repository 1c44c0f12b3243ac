"""What a file imports: which of it is allowed, and what its names stand for afterwards."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from mlx_autoresearch.trials.overlay import PACKAGE, RECIPE

from .names import BOUND, MODULES, TRUSTED, reaches_out

WATCHED = ("getattr", "setattr", "type")  # builtins that may be used in some ways only


class Imports:
    """The imports of one file. `problems` are those that are not allowed, with their lines."""

    def __init__(self, nodes: list[ast.AST], path: str):
        """nodes: all of the file's."""
        self.modules: dict[str, str] = {}  # names bound to modules that are not the recipe's own
        self.items: dict[str, tuple[str, str]] = {}  # names bound to what a module holds, as (module, name)
        self.names: set[str] = set()  # all that are bound by an import, or to what was imported
        self.problems: list[tuple[int, str]] = []
        for node in nodes:
            if isinstance(node, ast.Import):
                self.problems += [(node.lineno, said) for alias in node.names for said in self._import(alias)]
            elif isinstance(node, ast.ImportFrom):
                source = _absolute(node, path)
                self.problems += [(node.lineno, said) for alias in node.names for said in self._from(source, alias)]
        for node in nodes:
            if (
                isinstance(node, ast.Assign)
                and not isinstance(node.value, ast.Subscript)
                and root(node.value) in self.names
            ):
                self.names |= {target.id for target in node.targets if isinstance(target, ast.Name)}

    def _import(self, alias: ast.alias) -> Iterator[str]:
        bound = alias.asname or alias.name.split(".")[0]
        self.names.add(bound)
        if alias.name not in MODULES:
            yield f"imports {alias.name}"
        elif alias.asname and BOUND.get(bound) != alias.name:
            yield f"imports {alias.name} as {bound}; use {_ways(alias.name)}"
        elif bound not in BOUND:
            yield f"imports {alias.name}; use `from {alias.name} import ...`"
        else:
            yield from self._bind(bound, "", BOUND[bound])
            self.modules[bound] = BOUND[bound]

    def _from(self, source: str, alias: ast.alias) -> Iterator[str]:
        bound, whole = alias.asname or alias.name, f"{source}.{alias.name}"
        self.names.add(bound)
        yield from self._bind(bound, source, alias.name)
        if whole in MODULES:
            if BOUND.get(bound) == whole:
                self.modules[bound] = whole
            else:
                yield f"imports {alias.name} from {source}; use {_ways(whole)}"
        elif source in MODULES:
            if alias.name not in MODULES[source]:
                yield f"imports {alias.name} from {source}"
        elif _is_own(source):
            if alias.name in BOUND:
                yield f"imports {alias.name} from {source}; use {_ways(BOUND[alias.name])}"
            elif alias.name == "*" or reaches_out(alias.name):
                yield f"imports {alias.name} from {source}"
        elif not _is_own(whole) and alias.name not in TRUSTED.get(source.removeprefix(f"{PACKAGE}."), ()):
            yield f"imports {alias.name} from {source}"

    def _bind(self, bound: str, source: str, name: str) -> Iterator[str]:
        """One name stands for one thing in the whole file."""
        if bound in WATCHED or self.items.setdefault(bound, (source, name)) != (source, name):
            yield f"imports {name} as {bound}, which stands for something else"

    def module(self, node: ast.AST) -> str | None:
        """The module that a name, or a chain of names, stands for."""
        if isinstance(node, ast.Name):
            return self.modules.get(node.id)
        if isinstance(node, ast.Attribute) and (module := self.module(node.value)):
            inner = f"{module}.{node.attr}"
            return inner if inner in MODULES else None
        return None

    def item(self, node: ast.AST) -> tuple[str, str] | None:
        """The module and the name of what a name, or a chain of names, stands for."""
        if isinstance(node, ast.Name):
            return self.items.get(node.id, ("builtins", node.id))
        if isinstance(node, ast.Attribute) and (module := self.module(node.value)):
            return module, node.attr
        return None


def named(node: ast.AST) -> str | None:
    """The name that a node is."""
    return node.id if isinstance(node, ast.Name) else None


def root(node: ast.AST) -> str | None:
    """The name that a chain of attributes and subscripts begins with."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return named(node)


def _ways(module: str) -> str:
    """How a module may be had."""
    short = [f"`import {module} as {bound}`" for bound, of in BOUND.items() if of == module and bound != module]
    package, _, name = module.rpartition(".")
    above = [f"{bound}.{name}" for bound, of in BOUND.items() if of == package and bound != package]
    return (short or above or [f"`import {module}`"])[0]


def _absolute(node: ast.ImportFrom, path: str) -> str:
    """The module that names are imported from; a relative one that leads out of the package stays relative."""
    module = node.module or ""
    if not node.level:
        return module
    package = path.removeprefix("src/").split("/")[:-1]  # of an __init__.py it is the same folder
    if node.level > len(package) or package[0] != PACKAGE:
        return "." * node.level + module
    return ".".join([*package[: len(package) - node.level + 1], *([module] if module else [])])


def _is_own(module: str) -> bool:
    """Whether a module is the recipe's own, which is scanned like this one."""
    return f"{module}.".startswith(f"{PACKAGE}.{RECIPE}.")
