"""What a mutation does to an expression or a statement: each operator gives texts to put in a node's place.

Casts between integers stay: what they prevent shows in arrays of 2^31 elements.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from .sites import Site, is_integer
from .syntax import Node

_OTHER = {"+": "-", "-": "+", "*": "/", "/": "*", "%": "/", "<<": ">>", ">>": "<<"}
_SHIFTED = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="}
_FLOATS = ("float", "half", "bfloat", "bfloat16_t", "float16_t")
_OPPOSITE = {"min": "max", "max": "min", "simd_min": "simd_max", "simd_max": "simd_min"}
_NUMBER = re.compile(r"(?P<digits>[\d.]+(?:[eE][+-]?\d+)?)(?P<suffix>[a-zA-Z]*)")
_MEETING = ("barrier", "copies_arrive")


@dataclass(frozen=True)
class Text:
    """The text that nodes have their places in."""

    whole: str

    def __call__(self, node: Node) -> str:
        """A node's own text."""
        return self.whole[node.begin : node.end]

    def operand(self, node: Node) -> str:
        """The same, in parentheses if another operator could take it apart."""
        return f"({self(node)})" if node.kind in ("binary", "conditional", "assign") else self(node)


Operator = Callable[[Site, Text], Iterator[str]]


def _is_extent(site: Site) -> bool:
    """Whether it is part of an array's length: a longer one changes nothing."""
    return any(node.kind == "extent" for node in site.inside)


def swap_operands(site: Site, text: Text) -> Iterator[str]:
    """a - b becomes b - a; of / % << >> and comparisons too."""
    node = site.node
    if node.kind == "binary" and node.op not in ("+", "*", "==", "!=", "&&", "||", "&", "|", "^"):
        left, right = node.parts
        yield f"{text.operand(right)} {node.op} {text.operand(left)}"


def arithmetic(site: Site, text: Text) -> Iterator[str]:
    """a + b becomes a - b, and so on."""
    node = site.node
    if node.kind == "binary" and node.op in _OTHER and not (_is_extent(site) and node.op in ("/", "-", "%", ">>")):
        yield f"{text(node.parts[0])} {_OTHER[node.op]} {text.operand(node.parts[1])}"
    if node.kind == "assign" and node.op[:-1] in _OTHER:
        yield f"{text(node.parts[0])} {_OTHER[node.op[:-1]]}= {text(node.parts[1])}"
        yield f"{text(node.parts[0])} = {text(node.parts[1])}"


def comparison(site: Site, text: Text) -> Iterator[str]:
    """a < b becomes a <= b, and so on; && becomes ||."""
    node = site.node
    if node.kind == "binary" and node.op in _SHIFTED:
        yield f"{text(node.parts[0])} {_SHIFTED[node.op]} {text(node.parts[1])}"
    if node.kind == "binary" and node.op in ("&&", "||"):
        other = "||" if node.op == "&&" else "&&"
        yield f"{text.operand(node.parts[0])} {other} {text.operand(node.parts[1])}"


def constant(site: Site, text: Text) -> Iterator[str]:
    """An integer becomes one more, one less or twice as much; a float twice as much, or wrong by a thousandth."""
    node, match = site.node, _NUMBER.fullmatch(text(site.node))
    if node.kind == "name" and node.op in ("true", "false"):
        yield "false" if node.op == "true" else "true"
    if node.kind != "number" or not match:
        return
    digits, suffix = match["digits"], match["suffix"]
    if digits.isdigit() and suffix.lower() in ("", "u", "l", "ul"):
        value = int(digits)
        for other in dict.fromkeys((value + 1, abs(value - 1), 2 * value)):
            if other != value and not (_is_extent(site) and other > value):
                yield f"{other}{suffix}"
    elif float(digits) == 0:
        yield "1.0f"
    else:
        yield f"({text(node)} * 2.0f)"
        yield f"({text(node)} * 1.001f)"


def drop_term(site: Site, text: Text) -> Iterator[str]:
    """a + b and a * b become a and b; a - b and a / b become a."""
    node = site.node
    if node.kind == "binary" and node.op in ("+", "-", "*", "/", "%", "&&", "||", "<<", ">>"):
        if not (_is_extent(site) and node.op in ("/", "-", "%", ">>")):
            yield text(node.parts[0])
        if node.op in ("+", "*", "&&", "||"):
            yield text(node.parts[1])
    if node.kind == "conditional":
        yield text.operand(node.parts[1])
        yield text.operand(node.parts[2])


def _is_value(site: Site) -> bool:
    """Whether a number is computed here that is none of an index: an initialiser, what is assigned or returned."""
    node, parent = site.node, site.parent
    if parent.kind == "initialiser":
        return len(site.inside) > 2 and site.inside[2].op.split()[-1] in (*_FLOATS, *site.scope.types)
    if parent.kind == "return":
        return True
    return parent.kind == "assign" and node is parent.parts[1] and not is_integer(_type_of(parent.parts[0], site))


def _type_of(node: Node, site: Site) -> str:
    """The type of the variable that an element, a member or the like is of; empty if unknown."""
    while node.kind in ("index", "member", "call", "parentheses", "unary"):
        node = node.parts[0]
    return site.scope.type_of(node.op)


def sign(site: Site, text: Text) -> Iterator[str]:
    """What is assigned, or returned, gets the other sign; -x becomes x."""
    if _is_value(site) and site.node.kind != "number":
        yield f"-({text(site.node)})"
    if site.node.kind == "unary" and site.node.op == "-":
        yield text(site.node.parts[0])


def rounding(site: Site, text: Text) -> Iterator[str]:
    """What is assigned, or returned, is rounded to a shorter type first."""
    if _is_value(site) and site.node.kind != "number" and site.node.op not in (*_FLOATS, *site.scope.types):
        given = _type_of(site.node, site)
        for short in (*site.scope.types, "half"):
            if not re.search(rf"\b{short}\b", given):  # it is of this type
                yield f"float({short}({text(site.node)}))"


def cast(site: Site, text: Text) -> Iterator[str]:
    """A cast to a float type is left out, or one to another."""
    node = site.node
    if node.kind == "call" and len(node.parts) == 2 and node.op in (*_FLOATS, *site.scope.types):
        yield f"({text(node.parts[1])})"
        for other in (*site.scope.types, "half"):
            if other != node.op:
                yield f"{other}({text(node.parts[1])})"


def shorter_type(site: Site, text: Text) -> Iterator[str]:
    """A float variable gets a shorter type."""
    node = site.node
    if node.kind == "declaration" and re.search(r"\bfloat\b", node.op) and text(node).startswith(node.op):
        for other in (*site.scope.types, "half"):
            yield re.sub(r"\bfloat\b", other, node.op, count=1) + text(node)[len(node.op) :]


def swap_arguments(site: Site, text: Text) -> Iterator[str]:
    """Two neighbouring arguments of a call change places."""
    node = site.node
    if node.kind != "call" or _last(node.op) in _OPPOSITE:
        return
    arguments = node.parts[1:]
    for left, right in pairwise(arguments):
        if text(left) != text(right):
            start, between, end = node.begin, text.whole[left.end : right.begin], node.end
            yield text.whole[start : left.begin] + text(right) + between + text(left) + text.whole[right.end : end]


def _last(name: str) -> str:
    return name.split("<")[0].split("::")[-1]


def min_max(site: Site, text: Text) -> Iterator[str]:
    """min becomes max, max becomes min; or one of their arguments alone."""
    node = site.node
    if node.kind == "call" and _last(node.op) in _OPPOSITE:
        callee = text(node.parts[0])
        other = re.sub(r"\w+$", _OPPOSITE[_last(node.op)], callee)
        yield other + text.whole[node.parts[0].end : node.end]
        for argument in node.parts[1:]:
            yield text.operand(argument)


def variable(site: Site, text: Text) -> Iterator[str]:
    """An index becomes another variable of its type: the nearest two."""
    node = site.node
    in_head = any(a.kind == "for" and a.parts[2].begin <= node.begin < a.parts[2].end for a in site.inside)
    called = site.parent.kind in ("call", "member") and node is site.parent.parts[0]
    if node.kind != "name" or called or in_head:
        return
    given = site.scope.type_of(node.op)
    if is_integer(given):
        others = [name for name, other in site.scope.variables if other == given and name != node.op]
        yield from list(dict.fromkeys(others))[:2]


def negate(site: Site, text: Text) -> Iterator[str]:
    """A condition is turned round, or is always or never so."""
    if site.parent.kind in ("if", "conditional") and site.node is site.parent.parts[0]:
        yield f"!({text(site.node)})"
        yield "true"
        yield "false"


def remove_statement(site: Site, text: Text) -> Iterator[str]:
    """A statement is left out. (Barriers are not: that is what deletions.py does.)"""
    if _can_go(site, text):
        yield ";"


def _can_go(site: Site, text: Text) -> bool:
    node = site.node
    if node.kind == "expression" and not any(word in text(node) for word in _MEETING):
        return site.runs and site.parent.kind != "for"
    return False


def loop_round(site: Site, text: Text) -> Iterator[str]:
    """A statement of a loop is left out in the first, second, third or last round only."""
    loop = next((node for node in site.inside if node.kind == "for"), None)
    if loop is None or not (_can_go(site, text) or (site.node.kind == "expression" and site.parent is loop)):
        return
    counter = _counter(loop, text)
    if counter is None or any(word in text(site.node) for word in _MEETING):
        return
    name, start, condition, add = counter
    for number in range(3):
        yield f"if ({name} != {_after(start, add, number)}) {text(site.node)}"
    again = re.sub(rf"\b{name}\b", f"({name} {add[0]} {add[1]})", condition)
    yield f"if ({again}) {text(site.node)}"


def _after(start: str, add: tuple[str, str], rounds: int) -> str:
    return f"({start}){f' {add[0]} {add[1]}' * rounds}" if add[0] == "+" else f"({start}{f' * {add[1]}' * rounds})"


def _counter(loop: Node, text: Text) -> tuple[str, str, str, tuple[str, str]] | None:
    """Of a counting loop: its variable, where that starts, the condition to go on, and how it is stepped."""
    first, condition, step, _ = loop.parts
    if first.kind != "declaration" or condition.kind != "binary" or not first.parts[0].parts:
        return None
    name, start = first.parts[0].op, text(first.parts[0].parts[-1])
    if step.kind in ("unary", "postfix") and step.op == "++" and text(step.parts[0]) == name:
        return name, start, text(condition), ("+", "1")
    if step.kind == "assign" and step.op in ("+=", "*=") and text(step.parts[0]) == name:
        return name, start, text(condition), (step.op[0], f"({text(step.parts[1])})")
    return None


OPERATORS: dict[str, Operator] = {
    function.__name__.replace("_", "-"): function
    for function in (
        swap_operands, arithmetic, comparison, constant, drop_term, sign, rounding, cast, shorter_type, swap_arguments,
        min_max, variable, negate, remove_statement, loop_round,
    )
}  # fmt: skip
