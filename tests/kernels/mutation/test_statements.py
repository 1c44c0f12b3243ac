"""What the parser reads and what it leaves out."""

from __future__ import annotations

from mlx_autoresearch.kernels.mutation.mutants import mutants
from mlx_autoresearch.kernels.mutation.statements import parse
from mlx_autoresearch.kernels.mutation.syntax import Node
from mlx_autoresearch.kernels.registry import find_kernel, kernel_names


def read(text: str, variables: set[str] | None = None) -> tuple[str, list[int]]:
    tree, skipped = parse(text, set(), variables or set())

    def shown(node: Node) -> str:
        inner = " ".join(shown(part) for part in node.parts)
        return f"({node.op or node.kind} {inner})" if inner else node.op or node.kind

    return " ".join(shown(part) for part in tree.parts), skipped


def test_operators_bind_as_in_c() -> None:
    assert read("a = b + c * d - e;") == ("(expression (= a (- (+ b (* c d)) e)))", [])
    assert read("a = b < c && d || !e;") == ("(expression (= a (|| (&& (< b c) d) (! e))))", [])
    assert read("a = b ? c : d ? e : f;") == ("(expression (= a (? b c (? d e f))))", [])
    assert read("a = b >> 2 > c;") == ("(expression (= a (> (>> b 2) c)))", [])
    assert read("a = (b) / 4;") == ("(expression (= a (/ (parentheses b) 4)))", [])


def test_templates_and_comparisons_are_told_apart() -> None:
    assert (
        read("f<T, N>(a, g<vec<T, 2>>(b));")[0] == "(expression (f<T, N> f<T, N> a (g<vec<T, 2>> (g<vec<T, 2>> 2) b)))"
    )
    assert read("f(a < b, c > d);", {"a"})[0] == "(expression (f f (< a b) (> c d)))"


def test_what_is_not_understood_is_left_out_and_the_rest_is_read() -> None:
    text = "a = 1; switch (b) { case 1: c = 2; } d = 3; e = [&](int x) { return x; }; f = 4;"
    tree, skipped = read(text)
    assert tree == "(expression (= a 1)) (expression (= d 3)) empty (expression (= f 4))"
    assert skipped == [text.index("switch"), text.index("e =")]
    for broken in ("a = (b;", "}", "{", "if (a", "for (;;", "a = 'b", "template <", "a = b ?"):
        read(broken)


def test_all_of_our_kernels_is_understood() -> None:
    for name in kernel_names():
        found, unread = mutants(find_kernel(name))
        assert unread == []
        assert len(found) > 200
