"""The subset of C++ in which kernels are written, as a tree of expressions and statements with their places.

It need not understand everything: a statement that it cannot read is left out, and its place is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .tokens import Token

_LEVELS = (
    ("||",), ("&&",), ("|",), ("^",), ("&",), ("==", "!="), ("<", "<=", ">", ">="), ("<<", ">>"), ("+", "-"),
    ("*", "/", "%"),
)  # fmt: skip
_PRECEDENCE = {operator: level for level, operators in enumerate(_LEVELS) for operator in operators}
_ASSIGNMENTS = {"=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<="}
SCALARS = {
    *("bool", "char", "uchar", "short", "ushort", "int", "uint", "long", "ulong", "size_t", "ptrdiff_t", "unsigned"),
    *("float", "half", "bfloat", "bfloat16_t", "float16_t", "void", "auto"),
    *(f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}
_VECTORS = {f"{scalar}{n}" for scalar in SCALARS for n in (2, 3, 4)}
_QUALIFIERS = {
    *("const", "constexpr", "constant", "device", "thread", "threadgroup", "static", "volatile", "inline", "extern"),
    *("typename", "METAL_FUNC", "struct"),
}
_BEHIND_TEMPLATE = {"(", "::", "{", "*", "&", ">", ",", ")", ";", "["}


@dataclass(frozen=True)
class Node:
    """A part of the text from `begin` to `end`.

    Expressions: `name`, `number`, `string`, `unary`, `postfix`, `binary`, `assign`, `conditional`, `call`, `index`,
    `member`, `cast`, `parentheses`, `list`. Statements: `block`, `if`, `for`, `while`, `do`, `return`, `expression`,
    `declaration` of `declarator`s, `empty`, `other`. Around them: `function` with `parameter`s, `struct`, `template`.
    `op` is an operator, a name, or a declaration's type.
    """

    kind: str
    begin: int
    end: int
    op: str = ""
    parts: tuple[Node, ...] = ()


class NotUnderstood(Exception):
    """The text is none that the parser knows."""


@dataclass
class Parser:
    """Reads tokens from left to right. `types` and `variables` are names that the text itself, or its caller, gives."""

    text: str
    tokens: Sequence[Token]
    types: set[str]
    variables: set[str] = field(default_factory=set)
    at: int = 0
    skipped: list[int] = field(default_factory=list)  # where what was not understood begins

    # Tokens.

    def peek(self, ahead: int = 0) -> str:
        place = self.at + ahead
        return self.tokens[place].text if place < len(self.tokens) else ""

    def kind(self, ahead: int = 0) -> str:
        place = self.at + ahead
        return self.tokens[place].kind if place < len(self.tokens) else ""

    def here(self) -> int:
        return self.tokens[self.at].begin if self.at < len(self.tokens) else len(self.text)

    def behind(self) -> int:
        return self.tokens[self.at - 1].end

    def take(self, text: str) -> None:
        if self.peek() != text:
            raise NotUnderstood
        self.at += 1

    def closing(self, at: int) -> int:
        """The index of the token that closes the bracket at `at`."""
        depth = 0
        for i in range(at, len(self.tokens)):
            depth += (self.tokens[i].text in ("(", "[", "{")) - (self.tokens[i].text in (")", "]", "}"))
            if depth == 0:
                return i
        raise NotUnderstood

    # Types.

    def template_end(self, at: int) -> int | None:
        """Behind the template arguments that open at `at`; None where `<` is a comparison."""
        if self.tokens[at - 1].text in self.variables:
            return None
        depth, i = 0, at
        while i < len(self.tokens):
            text = self.tokens[i].text
            if text in ("(", "["):
                i = self.closing(i)
            elif text in (";", "{", "}", ")", "]", "&&", "||", "<=", "==", "?") or text in _ASSIGNMENTS:
                return None
            depth += (text == "<") - (text == ">")
            i += 1
            if depth == 0:
                behind = self.tokens[i] if i < len(self.tokens) else None
                return i if behind and (behind.kind == "name" or behind.text in _BEHIND_TEMPLATE) else None
        return None

    def type_name(self) -> str | None:
        """Takes a type with its qualifiers, pointers and references, and returns its text, or takes nothing."""
        start, found = self.at, False
        while True:
            if self.peek() in _QUALIFIERS:
                self.at += 1
            elif not found and self.kind() == "name":
                self.at, found = self.qualified_end(), True
            elif found and self.peek() in ("*", "&"):
                self.at += 1
            else:
                break
        if found:
            return self.text[self.tokens[start].begin : self.behind()]
        self.at = start
        return None

    def qualified_end(self) -> int:
        """Behind `a::b<c>::d`."""
        at = self.at
        while True:
            at += 1
            if at < len(self.tokens) and self.tokens[at].text == "<":
                at = self.template_end(at) or at
            if at + 1 < len(self.tokens) and self.tokens[at].text == "::" and self.tokens[at + 1].kind == "name":
                at += 1
            else:
                return at

    def is_type(self, text: str) -> bool:
        return text in SCALARS or text in _VECTORS or text in self.types

    # Expressions.

    def expression(self) -> Node:
        """An expression, assignments included."""
        left = self.conditional()
        if self.peek() in _ASSIGNMENTS:
            op = self.peek()
            self.at += 1
            right = self.expression()
            return Node("assign", left.begin, right.end, op, (left, right))
        return left

    def conditional(self) -> Node:
        left = self.binary(0)
        if self.peek() != "?":
            return left
        self.at += 1
        yes = self.expression()
        self.take(":")
        no = self.expression()
        return Node("conditional", left.begin, no.end, "?", (left, yes, no))

    def binary(self, level: int) -> Node:
        left = self.unary()
        while True:
            op, length = self.operator()
            if _PRECEDENCE.get(op, -1) < level:
                return left
            self.at += length
            right = self.binary(_PRECEDENCE[op] + 1)
            left = Node("binary", left.begin, right.end, op, (left, right))

    def operator(self) -> tuple[str, int]:
        """The operator here and its tokens: `>>` is two that touch."""
        touch = self.at + 1 < len(self.tokens) and self.tokens[self.at].end == self.tokens[self.at + 1].begin
        return (">>", 2) if touch and self.peek() == self.peek(1) == ">" else (self.peek(), 1)

    def unary(self) -> Node:
        begin, op = self.here(), self.peek()
        if op in ("-", "+", "!", "~", "*", "&", "++", "--"):
            self.at += 1
            operand = self.unary()
            return Node("unary", begin, operand.end, op, (operand,))
        if op == "(" and (cast := self.cast()):
            return cast
        return self.postfix(self.primary())

    def cast(self) -> Node | None:
        """`(type)x`, where the type is a known one, or has a qualifier or a star."""
        start = self.at
        self.at += 1
        plain = self.peek() not in _QUALIFIERS
        given = self.type_name()
        if given and self.peek() == ")" and (not plain or given.endswith("*") or self.is_type(given)):
            self.at += 1
            if self.kind() in ("name", "number") or self.peek() in ("(", "-", "&"):
                operand = self.unary()
                return Node("cast", self.tokens[start].begin, operand.end, given, (operand,))
        self.at = start
        return None

    def primary(self) -> Node:
        begin, kind = self.here(), self.kind()
        if kind in ("number", "string"):
            self.at += 1
            return Node(kind, begin, self.behind(), self.text[begin : self.behind()])
        if kind == "name":
            arguments = self.template_arguments()
            return Node("name", begin, self.behind(), self.text[begin : self.behind()], arguments)
        if self.peek() == "(":
            self.at += 1
            inner = self.expression()
            self.take(")")
            return Node("parentheses", begin, self.behind(), "", (inner,))
        if self.peek() == "{":
            parts = self.arguments("{", "}")
            return Node("list", begin, self.behind(), "", parts)
        raise NotUnderstood

    def template_arguments(self) -> tuple[Node, ...]:
        """Takes a qualified name; returns those of its template arguments that are numbers, true or false."""
        start, end = self.at, self.qualified_end()
        self.at = end
        found = []
        for i in range(start + 2, end - 1):
            token, alone = (
                self.tokens[i],
                self.tokens[i - 1].text in ("<", ",") and self.tokens[i + 1].text in (">", ","),
            )
            if alone and (token.kind == "number" or token.text in ("true", "false")):
                found.append(Node(token.kind, token.begin, token.end, token.text))
        return tuple(found)

    def arguments(self, opening: str, closing: str) -> tuple[Node, ...]:
        """Takes expressions in brackets."""
        self.take(opening)
        parts = []
        while self.peek() != closing:
            parts.append(self.expression())
            if self.peek() != closing:
                self.take(",")
        self.take(closing)
        return tuple(parts)

    def postfix(self, node: Node) -> Node:
        while True:
            op = self.peek()
            if op == "(":
                if node.op == "sizeof":
                    self.at = self.closing(self.at) + 1
                    node = Node("name", node.begin, self.behind(), self.text[node.begin : self.behind()])
                    continue
                arguments = self.arguments("(", ")")
                node = Node("call", node.begin, self.behind(), node.op, (node, *arguments))
            elif op == "{" and node.kind == "name" and self.is_type(node.op):
                arguments = self.arguments("{", "}")
                node = Node("call", node.begin, self.behind(), node.op, (node, *arguments))
            elif op == "[":
                self.at += 1
                index = self.expression()
                self.take("]")
                node = Node("index", node.begin, self.behind(), "", (node, index))
            elif op in (".", "->"):
                self.at += 1
                if self.peek() == "template":
                    self.at += 1
                member = self.primary()
                node = Node("member", node.begin, member.end, member.op, (node, *member.parts))
            elif op in ("++", "--"):
                self.at += 1
                node = Node("postfix", node.begin, self.behind(), op, (node,))
            else:
                return node
