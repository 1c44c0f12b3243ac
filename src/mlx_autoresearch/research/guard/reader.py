"""Walks the syntax tree of one file of changed code and tells what it must not do.

A module is had under one name, the same in every file, and is no value: each use is followed by the name of something
in it, which `names.py` must list. So no module hides behind another name, and an attribute called like one is refused.
"""

from __future__ import annotations

import ast
import builtins
import string
from collections.abc import Iterator

from mlx_autoresearch.trials.overlay import PACKAGE

from .imports import Imports, named, root
from .names import BOUND, DEFINED, MODULES, NAMES, REFUSED_ATTRIBUTES, REFUSED_BUILTINS, TRUSTED, is_dunder, reaches_out

_EVALUATED = TRUSTED["config.settings"]  # pydantic's: who derives from them has annotations evaluated


def problems(tree: ast.Module, path: str) -> Iterator[tuple[int, str]]:
    """What the code does that it must not, with its lines: imports first, then the rest in the tree's order."""
    reader = _Reader(tree, path)
    yield from reader.imports.problems
    yield from reader.uses()


class _Reader:
    def __init__(self, tree: ast.Module, path: str):
        self.nodes = list(ast.walk(tree))
        self.top = {id(node) for node in tree.body}
        self.parents = {id(child): node for node in self.nodes for child in ast.iter_child_nodes(node)}
        self.declared_global = {name for n in self.nodes if isinstance(n, ast.Global) for name in n.names}
        self.imports = Imports(self.nodes, path)
        self.bound = {name for node in self.nodes for name in _binds(node)}
        self.bound |= {n.id for n in self.nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
        self.bound |= {n.name for n in self.nodes if isinstance(n, _FUNCTIONS)}
        self.functions: dict[int, tuple[set[str], set[int]]] = {}  # see _function

    def uses(self) -> Iterator[tuple[int, str]]:
        for node in self.nodes:
            yield from ((getattr(node, "lineno", 1), problem) for problem in self._problems(node))

    def _problems(self, node: ast.AST) -> Iterator[str]:
        yield from (f"uses {name}" for name in _binds(node) if is_dunder(name) and name not in NAMES)
        match node:
            case ast.Name(id=name):
                own = name not in REFUSED_BUILTINS or self._is_argument(node)
                if not own or (is_dunder(name) and name not in NAMES):
                    yield f"uses {name}"
                yield from self._value(node)
            case ast.Attribute():
                yield from self._attribute(node)
            case ast.Subscript(ctx=ast.Store() | ast.Del()) if (base := root(node)) in self.imports.names:
                yield self._changes(base)
            case ast.Call():
                yield from self._call(node)
            case ast.MatchClass():
                yield from (f"uses .{name}" for name in node.kwd_attrs if _may_reach_out(name))
                if node.patterns and named(node.cls) not in _MATCHED - self.bound:
                    yield f"matches {_shown(node.cls)} by position; name the attributes, as in Point(x=0)"
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if is_dunder(name) and (name not in DEFINED or id(node) in self.top):
                    yield f"defines {name}"
                if node.returns:
                    yield from self._quoted(node.returns)
            case ast.ClassDef():
                yield from self._class(node)
            case ast.AnnAssign(annotation=annotation) | ast.arg(annotation=ast.expr() as annotation):
                yield from self._quoted(annotation)

    def _attribute(self, node: ast.Attribute) -> Iterator[str]:
        stored = not isinstance(node.ctx, ast.Load)
        if stored and (base := root(node)) in self.imports.names:
            yield self._changes(base)
        module = self.imports.module(node.value)
        if module and f"{module}.{node.attr}" in MODULES:
            yield from self._value(node)
        elif module and node.attr not in MODULES[module] and node.attr != "__version__":
            yield f"uses {module}.{node.attr}"
        elif module:
            yield from self._value(node)
        elif node.attr in BOUND:
            yield f"uses .{node.attr}, a module's name; call it otherwise, or import the module"
        elif reaches_out(node.attr) and not (self._is_class_name(node) or self._sets_frozen(node)):
            yield f"uses .{node.attr}"
        elif node.attr == "format" and not self._is_plain_format(node):
            yield "uses .format of a text that is not written there; use an f-string"

    def _changes(self, name: str | None) -> str:
        return f"changes the module {name}" if name in self.imports.modules else f"changes {name}, which is not its own"

    def _value(self, node: ast.Name | ast.Attribute) -> Iterator[str]:
        """Modules, and the few functions that can read attributes by a computed name, only in their ordinary use."""
        parent = self.parents.get(id(node))
        module = self.imports.module(node)
        if module:
            if not isinstance(parent, ast.Attribute) and not _is_asked(node, parent):
                yield f"uses the module {_shown(node)} as a value; use what is in it by name"
            return
        call = parent if isinstance(parent, ast.Call) and parent.func is node else None
        match self.imports.item(node):
            case ("builtins", "getattr" | "setattr" as name) if call is None:
                yield f"uses {name} as a value"
            case ("builtins", "type") if not (
                self._compares_type(call) or self._asks_type(node, parent) or self._is_argument(node)
            ):
                yield "uses type otherwise than to compare the type of a value, or to show its name"
            case ("functools", "wraps") if not (_takes_one(call) and self._decorates(call, *_FUNCTIONS)):
                yield "uses wraps otherwise than as the decorator @wraps(function)"
            case ("dataclasses", "field") if not self._declares(call):
                yield "uses field otherwise than to declare a field of a class"
            case ("dataclasses", "dataclass") if not any(self._decorates(n, ast.ClassDef) for n in (node, call)):
                yield "uses dataclass otherwise than as a decorator"
            case ("enum", name) if name in _ENUMERATIONS and not (
                isinstance(parent, ast.ClassDef) or self._asks_type(node, parent)
            ):
                yield f"uses {name} otherwise than to derive a class from it"
            case ("types", "SimpleNamespace") if call and any(keyword.arg is None for keyword in call.keywords):
                yield "gives SimpleNamespace computed names"

    def _call(self, node: ast.Call) -> Iterator[str]:
        function = named(node.func)
        if function in ("getattr", "setattr"):
            name = _text(node.args[1]) if len(node.args) > 1 else None
            module = self.imports.module(node.args[0]) if node.args else None
            if name is None or (module and name.endswith("*")):
                yield f"uses {function} with a computed name in {_shown(node)}"
            elif module:
                if name not in MODULES[module]:
                    yield f"uses {module}.{name}"
            elif _may_reach_out(name):
                yield f"uses .{name}"
            base = root(node.args[0]) if node.args else None
            if function == "setattr" and base and (base in self.imports.names or hasattr(builtins, base)):
                yield self._changes(base)

    def _class(self, node: ast.ClassDef) -> Iterator[str]:
        for base in node.bases:
            function = self.imports.item(base.func) if isinstance(base, ast.Call) else None
            if root(base) is None and function not in _TUPLES:
                yield f"computes a base of the class {node.name}"
            elif (item := self.imports.item(base)) and item[0].startswith(PACKAGE) and item[1] in _EVALUATED:
                yield f"derives from {item[1]}, whose annotations are evaluated"
            elif item and item[0] == "enum" and not self._has_members(node):
                yield f"makes the enumeration {node.name} without members, so that a call of it makes classes"

    def _has_members(self, node: ast.ClassDef) -> bool:
        """Whether the body of an enumeration makes a member of it, beyond doubt."""
        values = {named(t): n.value for n in node.body if isinstance(n, ast.Assign) for t in n.targets}
        return "_ignore_" not in self.bound and any(
            isinstance(value, ast.Constant | ast.Tuple)
            or (isinstance(value, ast.Call) and self.imports.item(value.func) == ("enum", "auto"))
            for name, value in values.items()
            if name and not name.startswith("_")
        )

    def _quoted(self, annotation: ast.expr) -> Iterator[str]:
        """An annotation in quotes is code to whoever evaluates it."""
        for node in ast.walk(annotation):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                try:
                    tree = ast.parse(node.value.strip(), mode="eval")
                except (SyntaxError, ValueError):
                    continue
                for inner in ast.walk(tree):
                    if isinstance(inner, ast.Call | ast.Lambda):
                        yield f"calls something in the annotation {node.value!r}"
                    elif isinstance(inner, ast.Attribute) and not self.imports.module(inner):
                        module = self.imports.module(inner.value)
                        if inner.attr not in MODULES[module] if module else reaches_out(inner.attr):
                            yield f"uses {_shown(inner)}"
                yield from self._quoted(tree.body)

    def _is_class_name(self, node: ast.Attribute) -> bool:
        parent = self.parents.get(id(node))
        return node.attr == "__class__" and isinstance(parent, ast.Attribute) and parent.attr == "__name__"

    def _sets_frozen(self, node: ast.Attribute) -> bool:
        """object.__setattr__(self, "name", value), as the __post_init__ of a frozen dataclass has it."""
        call = self.parents.get(id(node))
        return (
            (node.attr, named(node.value)) == ("__setattr__", "object")
            and isinstance(call, ast.Call)
            and call.func is node
            and len(call.args) == 3
            and named(call.args[0]) == "self"
            and (name := _text(call.args[1])) is not None
            and not _may_reach_out(name)
        )

    def _is_argument(self, node: ast.Name | ast.Attribute) -> bool:
        """Whether a builtin's name is here an argument of a function around it."""
        name = named(node)
        if name in self.declared_global:
            return False
        inner: ast.AST = node
        while (outer := self.parents.get(id(inner))) is not None:
            if isinstance(outer, ast.ClassDef):  # what its body deletes is looked up among the builtins
                return False
            if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                arguments, body = self._function(outer)
                if name in arguments and id(inner) in body:
                    return True
            inner = outer
        return False

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> tuple[set[str], set[int]]:
        """The names of a function's arguments, and the ids of what its body consists of; found once for each."""
        if id(node) not in self.functions:
            arguments = {argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg)}
            body = node.body if isinstance(node.body, list) else [node.body]
            self.functions[id(node)] = arguments, set(map(id, body))
        return self.functions[id(node)]

    def _is_plain_format(self, node: ast.Attribute) -> bool:
        """Whether the replacement fields of "...".format are written there and read no attribute that reaches out."""
        if not isinstance(node.value, ast.Constant) or not isinstance(node.value.value, str):
            return False
        try:
            return not any(map(_field_reaches_out, _fields(node.value.value)))
        except ValueError:
            return False

    def _declares(self, call: ast.Call | None) -> bool:
        """Whether a call stands where a class declares a field: name: type = call."""
        parent = self.parents.get(id(call))
        above = self.parents.get(id(parent))
        return isinstance(parent, ast.AnnAssign) and parent.value is call and isinstance(above, ast.ClassDef)

    def _decorates(self, node: ast.AST | None, *kinds: type[ast.AST]) -> bool:
        """Whether it is a decorator of one of these."""
        parent = self.parents.get(id(node))
        return isinstance(parent, kinds) and node in getattr(parent, "decorator_list", ())

    def _compares_type(self, call: ast.Call | None) -> bool:
        """type(x) is type(y), type(x).__name__ and f"{type(x)}", but nothing that could call what type(x) gives."""
        parent = self.parents.get(id(call))
        shows = isinstance(parent, ast.FormattedValue) or (
            isinstance(parent, ast.Attribute) and parent.attr == "__name__"
        )
        return _takes_one(call) and (shows or isinstance(parent, ast.Compare))

    def _asks_type(self, node: ast.AST, parent: ast.AST | None) -> bool:
        """isinstance(x, type), and `type` and type[X] in an annotation."""
        if isinstance(parent, ast.Call):
            return named(parent.func) in ("isinstance", "issubclass") and parent.args[1:] == [node]
        inner: ast.AST | None = node
        while isinstance(outer := self.parents.get(id(inner)), ast.Subscript | ast.Tuple | ast.BinOp):
            inner = outer
        return isinstance(outer, ast.arg | ast.AnnAssign | ast.FunctionDef) and inner in (
            outer.returns if isinstance(outer, ast.FunctionDef) else outer.annotation,
        )


_TUPLES = (("collections", "namedtuple"), ("typing", "NamedTuple"))
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_ENUMERATIONS = {"Enum", "Flag", "IntEnum", "IntFlag", "StrEnum"}
_MATCHED = {"bool", "bytes", "dict", "float", "frozenset", "int", "list", "set", "str", "tuple"}


def _may_reach_out(name: str) -> bool:
    """Whether an attribute that is not written with a dot must not be read; a * at the end stands for any ending."""
    if not name.endswith("*"):
        return reaches_out(name) or name == "format"
    head = name[:-1]
    return head.startswith("_") or any(known.startswith(head) for known in (*REFUSED_ATTRIBUTES, *BOUND, "format"))


def _text(node: ast.expr) -> str | None:
    """A constant text; "head*" for an f-string that begins with a constant head; None if it is computed."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=[ast.Constant(value=str(head)), *_]) if head:
            return f"{head}*"
    return None


def _is_asked(node: ast.AST, parent: ast.AST | None) -> bool:
    """getattr(node, ...) and hasattr(node, ...)"""
    return isinstance(parent, ast.Call) and named(parent.func) in ("getattr", "hasattr") and parent.args[:1] == [node]


def _takes_one(call: ast.Call | None) -> bool:
    return call is not None and len(call.args) == 1 and not call.keywords and not isinstance(call.args[0], ast.Starred)


def _fields(text: str) -> Iterator[str]:
    """The replacement fields of a format string, also those inside format specifications."""
    for _, field, specification, _ in string.Formatter().parse(text):
        if field is not None:
            yield field
            yield from _fields(specification or "")


def _field_reaches_out(field: str) -> bool:
    return any(reaches_out(part) for part in field.replace("[", ".").replace("]", "").split("."))


def _binds(node: ast.AST) -> Iterator[str]:
    """Names that a node binds without an ast.Name."""
    match node:
        case ast.ClassDef(name=name) | ast.ExceptHandler(name=str(name)) | ast.arg(arg=name):
            yield name
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
            yield name
        case ast.alias():
            yield node.asname or node.name
        case ast.Global(names=names) | ast.Nonlocal(names=names):
            yield from names


def _shown(node: ast.AST) -> str:
    return ast.unparse(node)
