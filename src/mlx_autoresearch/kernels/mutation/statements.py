"""Statements, functions and structs of a kernel's text: what syntax.py's expressions stand in."""

from __future__ import annotations

from .syntax import Node, NotUnderstood, Parser
from .tokens import Token, blank, tokenize

_UNREAD = {"switch", "case", "default", "goto", "enum", "union", "asm", "friend", "public", "private", "namespace"}


def parse(text: str, types: set[str], variables: set[str]) -> tuple[Node, list[int]]:
    """The tree of a header or of a body, whose parts are statements and macros; and where what was left out begins.

    `types` and `variables` are names that the text does not declare itself, such as the kernel's arguments.
    """
    tokens, macros = tokenize(blank(text))
    known = types | _declared_types(tokens)
    reader = _Reader(text, tokens, known, set(variables))
    parts = reader.until("")
    for macro in macros:
        inner = _Reader(text, macro, known, reader.variables)
        try:
            expression = inner.expression()
        except (NotUnderstood, RecursionError):
            continue  # a macro may hold anything
        if inner.at == len(macro):
            parts.append(Node("macro", expression.begin, expression.end, "", (expression,)))
    return Node("block", 0, len(text), "", tuple(parts)), reader.skipped


def _declared_types(tokens: list[Token]) -> set[str]:
    """Names of structs, of type parameters, and of typedefs."""
    found = set()
    for i, token in enumerate(tokens[:-1]):
        if token.text in ("struct", "class", "typename", "using"):
            found.add(tokens[i + 1].text)
        elif token.text == "typedef":
            end = next((j for j in range(i, len(tokens)) if tokens[j].text == ";"), len(tokens))
            found.add(tokens[end - 1].text)
    return found


class _Reader(Parser):
    def until(self, end: str) -> list[Node]:
        """Statements up to a token, which is not taken; what cannot be read is left out."""
        found = []
        while self.peek() != end:
            start = self.at
            try:
                found.append(self.statement())
            except (NotUnderstood, RecursionError):
                self.skipped.append(self.tokens[start].begin)
                self.at = max(self._behind_statement(start), start + 1)  # also past a brace that closes nothing
        return found

    def _behind_statement(self, at: int) -> int:
        """Behind the next semicolon, or the next braces."""
        while at < len(self.tokens):
            text = self.tokens[at].text
            if text in ("(", "[", "{"):
                try:
                    at = self.closing(at)
                except NotUnderstood:
                    return len(self.tokens)
                if text == "{":
                    return at + 1
            elif text == ";":
                return at + 1
            elif text == "}":
                return at
            at += 1
        return at

    def statement(self) -> Node:
        begin, word = self.here(), self.peek()
        if word in _UNREAD or not word:
            raise NotUnderstood
        if word == ";":
            self.at += 1
            return Node("empty", begin, self.behind())
        if word in ("typedef", "using", "break", "continue"):
            self.at = self._behind_statement(self.at)
            return Node("other", begin, self.behind(), word)
        read = {
            "{": self._block, "if": self._if, "for": self._for, "while": self._while, "do": self._do,
            "return": self._return, "template": self._template, "struct": self._struct,
        }.get(word, self._declaration)  # fmt: skip
        kind, op, parts = read()
        return Node(kind, begin, self.behind(), op, tuple(parts))

    def _block(self) -> tuple[str, str, list[Node]]:
        self.take("{")
        parts = self.until("}") if "}" in (token.text for token in self.tokens[self.at :]) else []
        self.take("}")
        return "block", "", parts

    def _if(self) -> tuple[str, str, list[Node]]:
        self.at += 1
        constexpr = self.peek() == "constexpr"
        self.at += constexpr
        self.take("(")
        condition = self.expression()
        self.take(")")
        parts = [condition, self.statement()]
        if self.peek() == "else":
            self.at += 1
            parts.append(self.statement())
        return "if", "constexpr" if constexpr else "", parts

    def _for(self) -> tuple[str, str, list[Node]]:
        self.at += 1
        self.take("(")
        first = self.statement()
        condition = self._optional(";")
        self.take(";")
        step = self._optional(")")
        while self.peek() == ",":
            self.at += 1
            self.expression()
        self.take(")")
        return "for", "", [first, condition, step, self.statement()]

    def _optional(self, end: str) -> Node:
        return Node("empty", self.here(), self.here()) if self.peek() == end else self.expression()

    def _while(self) -> tuple[str, str, list[Node]]:
        self.at += 1
        self.take("(")
        condition = self.expression()
        self.take(")")
        return "while", "", [condition, self.statement()]

    def _do(self) -> tuple[str, str, list[Node]]:
        self.at += 1
        body = self.statement()
        self.take("while")
        self.take("(")
        condition = self.expression()
        self.take(")")
        self.take(";")
        return "do", "", [body, condition]

    def _return(self) -> tuple[str, str, list[Node]]:
        self.at += 1
        parts = [] if self.peek() == ";" else [self.expression()]
        self.take(";")
        return "return", "", parts

    def _declaration(self) -> tuple[str, str, list[Node]]:
        """A declaration, a function, or an expression with its semicolon."""
        start, given = self.at, self.type_name()
        if given and self.kind() == "name" and self.peek(1) in ("=", ";", ",", "[", "(", "{"):
            if self.peek(1) == "(" and self._opens_function(self.at + 1):
                self.at += 1
                return self._function(self.tokens[self.at - 1].text)
            return "declaration", given, self._declarators()
        if given and self.peek() == "(" and self._opens_function(self.at):
            return self._function(given)  # a constructor
        self.at = start
        expression = self.expression()
        self.take(";")
        return "expression", "", [expression]

    def _opens_function(self, at: int) -> bool:
        behind = self.closing(at) + 1
        return behind < len(self.tokens) and self.tokens[behind].text in ("{", "const", ":", "thread")

    def _declarators(self) -> list[Node]:
        found = []
        while True:
            while self.peek() in ("*", "&"):
                self.at += 1
            begin, name = self.here(), self.peek()
            if self.kind() != "name":
                raise NotUnderstood
            self.at += 1
            parts = []
            while self.peek() == "[":
                self.at += 1
                size = self.expression()
                self.take("]")
                parts.append(Node("extent", size.begin, size.end, "", (size,)))
            if self.peek() == "=":
                self.at += 1
                value = self.expression()
                parts.append(Node("initialiser", value.begin, value.end, "", (value,)))
            elif self.peek() in ("(", "{"):
                parts += self.arguments(self.peek(), ")" if self.peek() == "(" else "}")
            self.variables.add(name)
            found.append(Node("declarator", begin, self.behind(), name, tuple(parts)))
            if self.peek() != ",":
                self.take(";")
                return found
            self.at += 1

    def _function(self, name: str) -> tuple[str, str, list[Node]]:
        end = self.closing(self.at)
        parameters = self._parameters(self.at + 1, end)
        self.at = end + 1
        while self.peek() not in ("{", ""):  # const, or a constructor's initialisers
            self.at += 1
        return "function", name, [*parameters, self.statement()]

    def _parameters(self, at: int, end: int) -> list[Node]:
        """Of a function or a template, between brackets: each one's type, with its name as the only part."""
        found = []
        while at < end:
            self.at, begin = at, self.tokens[at].begin
            word = self.peek() if self.peek() in ("typename", "class") else ""
            self.at += bool(word)
            given = word or self.type_name()
            if given and self.at < end and self.kind() == "name":
                name = Node("name", self.here(), self.tokens[self.at].end, self.peek())
                self.variables |= set() if word else {name.op}
                found.append(Node("parameter", begin, name.end, given, (name,)))
            at = self.at
            while at < end and self.tokens[at].text != ",":
                at = self.closing(at) + 1 if self.tokens[at].text in ("(", "[", "{") else at + 1
            at += 1
        return found

    def _template(self) -> tuple[str, str, list[Node]]:
        self.at += 1
        end = self.template_end(self.at) if self.peek() == "<" else None
        if end is None:
            raise NotUnderstood
        parameters = self._parameters(self.at + 1, end - 1)
        self.at = end
        return "template", "", [*parameters, self.statement()]

    def _struct(self) -> tuple[str, str, list[Node]]:
        self.at += 1
        start = self.at
        self.at = self.qualified_end()
        name = self.tokens[start].text
        if self.peek() != "{":
            raise NotUnderstood
        _, _, parts = self._block()
        self.take(";")
        return "struct", name, parts
