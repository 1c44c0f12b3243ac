"""What clang's syntax tree, as it prints it in JSON, says of a kernel's statements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Node = dict[str, Any]

LOOPS = {"ForStmt", "WhileStmt", "DoStmt", "CXXForRangeStmt"}
_STEPS = {"++", "--", "+=", "-=", "*=", "/=", "<<=", ">>="}


def begin(node: Node) -> int:
    return node["range"]["begin"]["offset"]


def end(node: Node) -> int:
    return node["range"]["end"]["offset"] + node["range"]["end"]["tokLen"]


def bare(node: Node) -> Node:
    """Without parentheses, conversions and `!`."""
    while node["kind"] in ("ParenExpr", "ImplicitCastExpr", "ExprWithCleanups", "AttributedStmt") or (
        node["kind"] == "UnaryOperator" and node["opcode"] == "!"
    ):
        node = node["inner"][0]
    return node


def logical(node: Node) -> tuple[Node, Node] | None:
    """Both sides of && or ||; None of anything else.

    Where a side depends on a template's arguments, the operator is not looked up yet: it might be that of vectors.
    """
    kind, inner = node.get("kind"), node.get("inner", [])
    if kind == "BinaryOperator" and node["opcode"] in ("&&", "||"):
        return inner[0], inner[1]
    if kind == "CXXOperatorCallExpr" and len(inner) == 3:
        called = inner[0]
        if called["kind"] == "UnresolvedLookupExpr" and called["name"] in ("operator&&", "operator||"):
            return inner[1], inner[2]
    return None


def all_nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in node.get("inner", []):
        yield from all_nodes(child)


def leaves_loop(body: Node, nested: bool = False) -> bool:
    """Whether a loop's body may leave the loop."""
    kind = body.get("kind")
    if kind in ("ReturnStmt", "GotoStmt") or (kind == "BreakStmt" and not nested):
        return True
    inside = nested or kind in LOOPS or kind == "SwitchStmt"
    return any(leaves_loop(child, inside) for child in body.get("inner", []))


def variable_id(node: Node) -> str | None:
    """The id of the variable that an expression is."""
    node = bare(node)
    return node["referencedDecl"]["id"] if node["kind"] == "DeclRefExpr" else None


def changes(body: Node, variable: str) -> bool:
    """Whether a variable may get another value: assigned, counted, or handed over by address or reference."""
    for node in all_nodes(body):
        kind, opcode, inner = node.get("kind", ""), node.get("opcode", ""), node.get("inner", [])
        assigns = kind == "CompoundAssignOperator" or (kind == "BinaryOperator" and opcode == "=")
        if (assigns or (kind == "UnaryOperator" and opcode in ("++", "--", "&"))) and variable_id(inner[0]) == variable:
            return True
        resolved = kind == "CallExpr" and inner[0]["kind"] == "ImplicitCastExpr"
        if resolved and any(child["kind"] == "DeclRefExpr" and variable_id(child) == variable for child in inner[1:]):
            return True  # a value would be converted from the variable
    return False


def labels(body: Node) -> Iterator[Node]:
    """The labels of a switch, without those of switches inside."""
    for child in body.get("inner", []):
        if child.get("kind") in ("CaseStmt", "DefaultStmt"):
            yield child
        if child.get("kind") != "SwitchStmt":
            yield from labels(child)


def constant_rounds(node: Node, text: str) -> str:
    """C++ that says whether a loop of `text` has the same number of rounds whatever the data."""
    if node["kind"] == "CXXForRangeStmt":
        return "false" if leaves_loop(node["inner"][-1]) else "true"
    if node["kind"] != "ForStmt":
        return "false"
    first, _, condition, step, body = (bare(child) if child.get("kind") else child for child in node["inner"])
    variable, start = _start(first)
    compares = condition.get("kind") == "BinaryOperator" and condition["opcode"] in ("<", "<=", ">", ">=", "!=")
    if variable is None or not compares or leaves_loop(body) or changes(body, variable):
        return "false"
    sides = [side for side in condition["inner"] if variable_id(side) != variable]
    counts = step.get("kind") in ("UnaryOperator", "CompoundAssignOperator") and step["opcode"] in _STEPS
    if len(sides) != 1 or not counts or variable_id(step["inner"][0]) != variable:
        return "false"
    parts = [start, *sides, *step["inner"][1:]]
    return " && ".join(f"__builtin_constant_p({text[begin(part) : end(part)]})" for part in parts)


def _start(first: Node) -> tuple[str | None, Node]:
    """The one variable that the beginning of a `for` sets, and what to; None if it does anything else."""
    declared = first.get("inner", []) if first.get("kind") == "DeclStmt" else []
    if len(declared) == 1 and declared[0].get("init"):
        return declared[0]["id"], declared[0]["inner"][-1]
    if first.get("kind") == "BinaryOperator" and first["opcode"] == "=":
        return variable_id(first["inner"][0]), first["inner"][1]
    return None, first
