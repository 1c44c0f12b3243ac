"""Numbers as people write them, keys once, errors with a place."""

import pytest

from mlx_autoresearch.config.yaml_text import dump_yaml, parse_yaml


def powers(base: int, form: str, levels: int = 8) -> str:
    """Lines, each an alias of the one before `base` times: base^levels values at the end."""
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i} " + form.format(", ".join([f"*a{i - 1}"] * base)) for i in range(1, levels)]
    return "\n".join(lines)


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
        ("9" * 5000, "line 1, column 1: a number has too many digits: 5,000; 100 are allowed"),
        ("a: 0x" + "f" * 5000, "line 1, column 4: a number has too many digits: 5,002; 100 are allowed"),
        ("a: " + "1:" * 5000 + "1", "line 1, column 4: a number has too many digits: 10,001; 100 are allowed"),
        (f"a: {2**64 + 1}", "line 1, column 4: 18446744073709551617 is too large a number"),
        ("a: {b: !!int ''}", "a value is not what its tag, such as !!bool, says"),
        ("!!bool maybe", "a value is not what its tag, such as !!bool, says"),
        ("!!timestamp now", "a value is not what its tag, such as !!bool, says"),
        (f"a: {'1:' * 45}{'9' * 9}.5\nb: !!float ''", "a value is not what its tag, such as !!bool, says"),
        ("a: &a [*a]", "line 1, column 4: a value must not contain itself"),
        ("a: &a {b: {c: *a}}", "line 1, column 4: a value must not contain itself"),
        (powers(10, "[{}]"), "it has more than 20,000 values, with what its aliases stand for"),
        (powers(10, "{{<<: [{}]}}"), "it has more than 20,000 values, with what its aliases stand for"),
        (powers(1, "[{}]", 60), "it is nested too deeply"),
        ("[" + "a," * 20_000 + "]", "it has more than 20,000 values"),
        ("a" * 1_000_001, "it has 1,000,001 characters; 1,000,000 are allowed"),
        ("*" + "a" * 5000, "line 1, column 1: found undefined alias 'aaaa"),
    ],
    ids=lambda value: value[:12],
)
def test_errors_say_where_and_what_in_one_line(text, message):
    with pytest.raises(ValueError) as error:
        parse_yaml(text)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_what_is_within_the_limits_is_read():
    assert parse_yaml(f"[{2**64}, -{2**64}, 1e19, 1e300]") == [2**64, -(2**64), 1e19, 1e300]
    assert parse_yaml("[" * 50 + "1" + "]" * 50) is not None
    assert len(parse_yaml(powers(3, "[{}]"))) == 8
