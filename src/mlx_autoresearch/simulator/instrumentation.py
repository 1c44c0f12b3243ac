"""Writes counters into a kernel's C++: which way each condition goes, how many rounds each loop makes.

clang's syntax tree says where conditions and loops begin and end. Everything is inserted, nothing moved: a condition c
becomes `msl::seen(place, static_cast<bool>((c)))`; shim/coverage.h has the counters.
"""

from __future__ import annotations

import json
import re
import threading
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from mlx_autoresearch.errors import UserError

from .build import preprocess, syntax_tree
from .compilers import Compiler
from .syntax import LOOPS, Node, all_nodes, bare, begin, constant_rounds, end, labels, logical

COUNTERS = 5  # of a place, as in shim/coverage.h
# A "do" loop makes at least one round. A function's places follow it, before the next function.
Kind = Literal["condition", "loop", "do", "case", "function"]

_LINE_MARKER = re.compile(r'^# (?P<line>\d+) "(?P<file>[^"]*)".*\n', re.M)
_LOOP_PRAGMA = re.compile(r"^[ \t]*#[ \t]*pragma[ \t]+(?:unroll|nounroll|clang[ \t]+loop|GCC[ \t]+unroll)[^\n]*", re.M)
_FUNCTIONS = {"FunctionDecl", "CXXMethodDecl", "CXXConstructorDecl", "CXXConversionDecl", "CXXDestructorDecl"}
_BRANCHING = {"IfStmt", "SwitchStmt", "CaseStmt", "DefaultStmt", "ConditionalOperator", *LOOPS}
_BRANCHING |= {"BinaryOperator", "CXXOperatorCallExpr"}
_NOT_RUN = {  # here, at least
    *("StaticAssertDecl", "UnaryExprOrTypeTraitExpr", "TemplateArgument", "ConstantExpr", "CXXNoexceptExpr"),
    *("CXXDefaultArgExpr", "CXXDefaultInitExpr"),
}
_LITERALS = {"CXXBoolLiteralExpr", "IntegerLiteral"}
_INTEGER = re.compile(r"const (?:bool|(?:un)?signed.*|u?char|u?short|u?int|u?long(?: long)?|size_t|u?int\d+_t)")
_GENERATED = '# 1 "generated"\n'
_ENTRY = 'extern "C" MSL_UNCHECKED void msl_entry'


@dataclass(frozen=True, order=True)
class Place:
    """A condition, a loop, a `case` or a function of a kernel, and where it stands: the same in every template."""

    file: str
    line: int
    column: int  # of the text without macros: tells two on one line apart
    kind: Kind
    text: str
    outer: tuple[int, ...] = ()  # the numbers of the places that decide whether this one is reached


@dataclass(frozen=True)
class Instrumented:
    """C++ with counters: those of places[i] are i * COUNTERS …; `unmeasured` says in words what has none."""

    source: str = ""
    places: tuple[Place, ...] = ()
    unmeasured: tuple[str, ...] = ()
    header: str = ""  # all before the kernel's signature
    body: str = ""  # all behind it


_read: dict[tuple[str, str], Instrumented] = {}  # by header and body
_reading = threading.Lock()


def instrument(source: str, files: frozenset[str], compiler: Compiler) -> Instrumented:
    """A runnable kernel (translation.py) with counters in what stands in `files`. Raises UserError without clang."""
    require_clang(compiler)
    kernel, entry, rest = source.partition(_ENTRY)
    # Without macros a place in the tree is a place in the text; a #pragma must stand right before its loop.
    text = preprocess(kernel.encode("ascii", "replace").decode(), compiler)
    text = _LOOP_PRAGMA.sub(lambda match: " " * len(match[0]), text)
    # The signature is what differs between dtypes: header and body are read once.
    opened = text.index("{", text.index(_GENERATED)) + 1
    header, signature, body = text.partition(_GENERATED)[0], text[text.index(_GENERATED) : opened], text[opened:]
    with _reading:
        if (header, body) not in _read:
            writer = _Writer(text, files)
            try:
                for node in json.loads(syntax_tree(text, compiler)).get("inner", []):
                    writer.declaration(node)
            except RecursionError:
                raise UserError("kernels: coverage: a statement or an expression is nested too deeply") from None
            _read[header, body] = writer.result(len(header), opened)
        done = _read[header, body]
    # The shim's own macros are gone, but for this one.
    head = '#include "coverage.h"\n#define MSL_UNCHECKED __attribute__((no_sanitize("thread")))\n'
    return replace(done, source=f"{head}{done.header}{signature}{done.body}\n{_GENERATED}{entry}{rest}")


def require_clang(compiler: Compiler) -> None:
    """Raises UserError for another compiler."""
    if not compiler.is_clang:
        raise UserError(
            f"kernels: --coverage reads clang's syntax tree, and the compiler is {compiler}: "
            "install clang++ 17 or newer, or leave out --coverage"
        )


@dataclass
class _Writer:
    """Collects places and what to insert for them, in the order of the text, outer things before inner ones."""

    text: str
    files: frozenset[str]
    places: list[Place] = field(default_factory=list)
    unmeasured: list[str] = field(default_factory=list)
    opening: dict[int, list[str]] = field(default_factory=dict)  # offset: texts, outer ones first
    closing: dict[int, list[str]] = field(default_factory=dict)  # inner ones first
    outer: list[int] = field(default_factory=list)  # as in Place, of what is visited now
    again: list[tuple[int, str, Node, str]] = field(default_factory=list)  # offset, text before and behind a node's
    bodies: set[int] = field(default_factory=set)
    visited: set[tuple[str, int, int]] = field(default_factory=set)  # the tree may hold an initialiser twice

    def __post_init__(self) -> None:
        found = list(_LINE_MARKER.finditer(self.text))
        self.markers = [(match.end(), match["file"], int(match["line"])) for match in found]
        self.starts = [start for start, _, _ in self.markers]

    def where(self, offset: int) -> tuple[str, int, int]:
        """File, line and column of an offset."""
        start, file, line = self.markers[bisect_right(self.starts, offset) - 1]
        column = offset - self.text.rfind("\n", 0, offset)
        return file, line + self.text.count("\n", start, offset), column

    def place(self, kind: Kind, offset: int, text: str) -> int:
        """The number of a new place."""
        self.places.append(Place(*self.where(offset), kind, " ".join(text.split()), tuple(self.outer)))
        return len(self.places) - 1

    def within(self, first: int, nodes: Iterable[Node]) -> None:
        """Visits what the places from `first` on decide about."""
        before, self.outer = self.outer, [*self.outer, *range(first, len(self.places))]
        for node in nodes:
            self.visit(node)
        self.outer = before

    def slice(self, node: Node) -> str:
        """The text of a node."""
        return self.text[begin(node) : end(node)]

    def skip(self, node: Node, what: str) -> None:
        """Notes that a construct is not measured."""
        file, line, _ = self.where(begin(node))
        self.unmeasured.append(f"{file}:{line}: {what}")

    def around(self, node: Node, before: str, after: str) -> None:
        self.opening.setdefault(begin(node), []).append(before)
        self.closing.setdefault(end(node), []).insert(0, after)

    def before(self, offset: int, text: str) -> None:
        self.opening.setdefault(offset, []).append(text)

    def result(self, header: int, body: int) -> Instrumented:
        """The text up to `header` and from `body` on, with everything inserted."""
        copies = [(at, before + self.rendered(begin(n), end(n)) + after) for at, before, n, after in self.again]
        for offset, text in copies:
            self.opening.setdefault(offset, []).insert(0, text)
        parts = self.rendered(0, header), self.rendered(body, len(self.text))
        return Instrumented("", tuple(self.places), tuple(self.unmeasured), *parts)

    def rendered(self, first: int, behind: int) -> str:
        """The text from `first` on and before `behind`, with what is inserted for what stands there."""
        parts, last = [], first
        for offset in sorted({*self.opening, *self.closing}):
            if first <= offset <= behind:
                parts.append(self.text[last:offset])
                parts += self.closing.get(offset, []) if offset > first else []
                parts += self.opening.get(offset, []) if offset < behind else []
                last = offset
        return "".join([*parts, self.text[last:behind]])

    def declaration(self, node: Node) -> None:
        """The functions of a declaration, but for what clang made of templates."""
        kind = node.get("kind", "")
        if node.get("isImplicit") or kind in _NOT_RUN:
            return
        if kind in _FUNCTIONS:
            self.function(node)
            return
        templates = 0
        for child in node.get("inner", []):
            if kind in ("FunctionTemplateDecl", "ClassTemplateDecl") and not child.get("kind", "").startswith(
                ("TemplateT", "NonType")
            ):
                templates += 1
                if templates > 1:  # the first is as it is written
                    return
            self.declaration(child)

    def function(self, node: Node) -> None:
        inner = node.get("inner", [])
        body = next((child for child in inner if child.get("kind") == "CompoundStmt"), None)
        if body is None or begin(body) in self.bodies or self.where(begin(node))[0] not in {*self.files, "generated"}:
            return
        self.bodies.add(begin(body))
        number = self.place("function", begin(node), node.get("name", "").partition("<")[0])
        self.before(begin(body) + 1, f" msl::count({number * COUNTERS});")
        for child in inner:
            if child.get("kind") == "CXXCtorInitializer":
                self.children(child)
        self.children(body)

    def children(self, node: Node) -> None:
        for child in node.get("inner", []):
            self.visit(child)

    def visit(self, node: Node) -> None:
        kind = node.get("kind", "")
        place = (kind, begin(node), end(node)) if kind in _BRANCHING else None
        if kind in _NOT_RUN or place in self.visited:
            return
        if place:
            self.visited.add(place)
        if kind == "IfStmt":
            self.if_statement(node)
        elif kind in LOOPS:
            self.loop(node)
        elif kind == "SwitchStmt":
            self.switch(node)
        elif kind in ("CaseStmt", "DefaultStmt"):
            self.case(node)
        elif kind == "ConditionalOperator":
            first, (condition, *sides) = len(self.places), node["inner"]
            self.condition(condition)
            self.within(first, sides)
        elif kind == "BinaryConditionalOperator":
            self.skip(node, "the condition of a `?:` without a middle")
            self.children(node)
        elif sides := logical(node):
            first, (left, right) = len(self.places), sides
            self.condition(left)
            before, self.outer = self.outer, [*self.outer, *range(first, len(self.places))]
            self.condition(right)
            self.outer = before
        elif kind == "DeclStmt":
            self.variables(node)
        elif kind == "LambdaExpr":
            self.children(node["inner"][-1])
        else:
            self.children(node)

    def condition(self, node: Node) -> None:
        """Counts which way it goes; of && and || those of each side."""
        inner = bare(node)
        if logical(inner):
            self.visit(inner)
        elif inner["kind"] not in _LITERALS:
            number = self.place("condition", begin(node), self.slice(node))
            self.around(node, f"msl::seen({number}, static_cast<bool>((", ")))")
            self.visit(node)

    def if_statement(self, node: Node) -> None:
        inner = list(node["inner"])
        initialiser = inner.pop(0) if node.get("hasInit") else None
        variable = inner.pop(0) if node.get("hasVar") else None
        condition, *branches = inner
        if initialiser:
            self.visit(initialiser)
        first = len(self.places)
        if variable:
            self.declared_condition(node, variable)
        elif not node.get("isConstexpr"):
            self.condition(condition)
        elif initialiser:
            self.skip(node, "the condition of an `if constexpr` with an initialiser")
        else:
            self.condition(condition)
            self.again.append((begin(condition), "(void)(", condition, "); "))
        self.within(first, branches)

    def declared_condition(self, node: Node, variable: Node) -> None:
        """`if (T x = …)` becomes `if (T x = …; seen(x))`."""
        if node.get("hasInit"):
            self.skip(node, "the condition of an `if` that declares two variables")
            return
        name = variable["inner"][0]["name"]
        number = self.place("condition", begin(variable), self.slice(variable))
        self.visit(variable)
        self.closing.setdefault(end(variable), []).append(f"; msl::seen({number}, static_cast<bool>({name}))")

    def loop(self, node: Node) -> None:
        """The counter of rounds is declared in a `switch` round the loop, which no `break` or `else` can mistake."""
        kind, inner = node["kind"], node["inner"]
        body = inner[0] if kind == "DoStmt" else inner[-1]
        conditions = {"ForStmt": inner[2:3], "WhileStmt": inner[-2:-1], "DoStmt": inner[1:]}.get(kind, [])
        condition = next((child for child in conditions if child.get("kind")), None)
        declared = node.get("hasVar") or condition is None
        text = self.text[begin(node) : begin(body)] if declared else f"while {self.slice(condition or node)}"
        endless = kind in ("ForStmt", "WhileStmt") and (condition is None or bare(condition)["kind"] in _LITERALS)
        number = self.place("do" if kind == "DoStmt" or endless else "loop", begin(node), text)
        constant = constant_rounds(node, self.text)
        self.before(begin(node), f"switch (int msl_rounds_{number} = msl::enter<{constant}>({number}); 0) default: ")
        for child in inner:
            if child is body:
                self.before(begin(body), f"if (msl::begin_round({number}, msl_rounds_{number}), false) {{}} else ")
                self.within(number, [body])
            elif kind != "CXXForRangeStmt" and child.get("kind"):
                self.visit(child)

    def switch(self, node: Node) -> None:
        for child in node["inner"]:
            self.visit(child)
        body = node["inner"][-1]
        if body["kind"] == "CompoundStmt" and not any(n["kind"] == "DefaultStmt" for n in labels(body)):
            number = self.place("case", begin(node), f"{self.text[begin(node) : begin(body)]} without a case")
            self.before(end(body) - 1, f"; if (false) {{ default: msl::count({number * COUNTERS}); }} ")

    def case(self, node: Node) -> None:
        body = node["inner"][-1]
        number = self.place("case", begin(node), self.text[begin(node) : begin(body)].rstrip(" :\n"))
        self.before(begin(body), f"if (msl::count({number * COUNTERS}), false) {{}} else ")
        self.within(number, [body])

    def variables(self, node: Node) -> None:
        """What initialises constants the compiler evaluates: it is evaluated once more, behind the declaration."""
        for variable in node.get("inner", []):
            if variable.get("kind") == "CXXRecordDecl":
                self.local_class(variable)
            if variable.get("kind") != "VarDecl" or not variable.get("init"):
                continue
            value = variable["inner"][-1]
            first = len(self.places)
            self.visit(value)
            constant = variable.get("constexpr") or _INTEGER.fullmatch(variable["type"]["qualType"])
            runs = len(self.places) > first or any("Call" in n.get("kind", "") for n in all_nodes(value))
            if not constant or not runs:
                continue
            if variable["init"] != "c" or self.text[begin(value)] == "{" or self.text[end(node) - 1] != ";":
                if variable.get("constexpr"):
                    self.skip(
                        variable, "the conditions of a constant in braces, or of one that a loop or `if` declares"
                    )
                continue
            guard = f" if constexpr (__builtin_constant_p({variable['name']})) (void)("
            self.again.append((end(node), guard, value, ");"))

    def local_class(self, node: Node) -> None:
        """The functions of a class inside a function, whose places are those of the function."""
        for child in node.get("inner", []):
            if child.get("kind") in _FUNCTIONS and not child.get("isImplicit"):
                self.children(child)
