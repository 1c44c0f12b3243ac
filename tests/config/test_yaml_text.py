"""Numbers as people write them, keys once, errors with a place."""

import pytest

from mlx_autoresearch.config.yaml_text import dump_yaml, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000),
        ("-1.5e3", -1500),
        ("2.5e0", 2.5),
        (".5e1", 5),
        ("1.5e+3", 1500),
        ("1.0", 1.0),
        ("131_072", 131072),
        ("e3", "e3"),
        ("1e", "1e"),
        ("1e-3x", "1e-3x"),
        ("'1e3'", "1e3"),
        ("[1e-1, L]", [0.1, "L"]),
        ("", None),
        ("{a: {b: 1}, c: {b: 1}}", {"a": {"b": 1}, "c": {"b": 1}}),
        ("a: &x {b: 1}\nc: {<<: *x, b: 2}\nd: {<<: *x}", {"a": {"b": 1}, "c": {"b": 2}, "d": {"b": 1}}),
    ],
)
def test_values(text, value):
    parsed = parse_yaml(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        "1e5",
        "1e-5",
        "-.5E3",
        "null",
        "no",
        "1",
        "",
        "a: b",
        "# a",
        "ä\u2028😀",
        "a\nb",
        1e-5,
        1e300,
        0.1,
        [1, {"a": None}],
    ],
)
def test_what_is_dumped_is_parsed_to_the_same(value):
    assert parse_yaml(dump_yaml({"key": value})) == {"key": value}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "line 3, column 1: the key a is given twice"),
        ("t:\n  x: {k: 1, k: 1}", "line 2, column 13: the key k is given twice"),
        ("a: 1\n5: 2", "line 2, column 1: a key must be a word"),
        ("yes: 2", "line 1, column 1: a key must be a word"),
        ("[a]: 2", "line 1, column 1: a key must be a word"),
        ("a:\n\tb: 1", r"line 2, column 1: found character '\t' that cannot start any token"),
        ("a: [1", "line 1, column 6: expected ',' or ']', but got '<stream end>'"),
        ("a: 1\n---\nb: 1", "line 2, column 1: but found another document"),
        ("*a", "line 1, column 1: found undefined alias 'a'"),
        ("!!python/name:os.system", "line 1, column 1: could not determine a constructor for the tag"),
        ("\x00", "special characters are not allowed"),
        ("[" * 2000, "it is nested too deeply"),
        ("2024-13-41", "month must be in 1..12"),
        ("9" * 5000, "Exceeds the limit"),
    ],
    ids=lambda value: value[:12],
)
def test_errors_say_where_and_what_in_one_line(text, message):
    with pytest.raises(ValueError) as error:
        parse_yaml(text)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
