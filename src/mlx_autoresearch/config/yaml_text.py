"""Reads and writes YAML in which `1e-3` is a number and a key that is given twice is an error.

Whoever wrote it, reading takes little time and memory: text, values, nesting and numbers have limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.plain_text import one_line

_LONGEST = 1_000_000  # characters of a document, and of its values, an alias counted as what it stands for
_MOST = 20_000  # values in it, an alias counted as what it stands for
_DEEPEST = 50  # mappings and lists in each other
_DIGITS = 100  # of a number
_LARGEST = 2**64  # of a whole number, on both sides of 0


def read_mapping(path: Path, what: str, keys: Iterable[str], instead: str) -> dict[str, Any]:
    """The mapping in a file of YAML; an empty file holds an empty one.

    For the messages: `what` names the kind of file, `keys` are those it may have, `instead` is advice if there is none.
    Raises UserError, in one line, when the file cannot be read or holds no mapping.
    """
    try:
        values = parse_yaml(read_text(path, what, instead))
    except ValueError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if values is not None and not isinstance(values, dict):
        raise UserError(f"{path} must be a mapping of sections ({', '.join(keys)}), got {values!r:.60}")
    return values or {}


def read_text(path: Path, what: str, instead: str) -> str:
    """A file's text in UTF-8. Raises UserError as `read_mapping` does."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"no {what} {path}; {instead}") from None
    except OSError as error:
        raise UserError(f"cannot read {what} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text") from None


def parse_yaml(text: str) -> Any:
    """The value of one YAML document; raises ValueError with one line that says where and what is wrong."""
    if len(text) > _LONGEST:
        raise ValueError(f"it has {len(text):,} characters; {_LONGEST:,} are allowed")
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(where + one_line(str(error.problem or error.context))) from None
    except yaml.YAMLError as error:
        raise ValueError(getattr(error, "reason", "it cannot be parsed")) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (AttributeError, LookupError, OverflowError):  # PyYAML's way to say it
        raise ValueError("a value is not what its tag, such as !!bool, says") from None


def dump_yaml(value: Any) -> str:
    """`value`, of plain types, as text that `parse_yaml` reads back to an equal one."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    composed, depth = 0, -1  # nodes so far, and those around the present one

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.composed, self.depth = self.composed + 1, self.depth + 1
        if self.composed > _MOST:
            raise ValueError(f"it has more than {_MOST:,} values")
        if self.depth > _DEEPEST:
            raise ValueError("it is nested too deeply")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_document(self, node: yaml.Node) -> Any:
        _measure(node, {})
        return super().construct_document(node)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not key.tag.endswith((":str", ":merge")):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value} is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return node

    def construct_float(self, node: yaml.ScalarNode) -> int | float:
        number = self.construct_yaml_float(_of_few_digits(node))
        whole = number.is_integer() and abs(number) <= _LARGEST and "e" in node.value.lower()
        return int(number) if whole else number  # 1e6 steps

    def construct_int(self, node: yaml.ScalarNode) -> int:
        number = self.construct_yaml_int(_of_few_digits(node))
        if abs(number) > _LARGEST:
            raise yaml.MarkedYAMLError(problem=f"{number} is too large a number", problem_mark=node.start_mark)
        return number


def _of_few_digits(node: yaml.ScalarNode) -> yaml.ScalarNode:
    if len(node.value) > _DIGITS:
        problem = f"a number has too many digits: {len(node.value):,}; {_DIGITS} are allowed"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    return node


def _measure(node: yaml.Node, known: dict[yaml.Node, tuple[int, int, int] | None]) -> tuple[int, int, int]:
    """How many values a node holds, how deep they lie and how many characters they have, an alias counted as what it
    stands for.

    known: what was measured before; None: is being measured. Raises ValueError for too many, too deep or too long ones.
    """
    if node in known:
        measured = known[node]
        if measured is None:
            raise yaml.MarkedYAMLError(problem="a value must not contain itself", problem_mark=node.start_mark)
        return measured
    known[node] = None
    values, depth, length = 1, 0, len(node.value) if isinstance(node, yaml.ScalarNode) else 0
    if isinstance(node, yaml.CollectionNode):
        pairs = isinstance(node, yaml.MappingNode)
        for inner in (each for pair in node.value for each in pair) if pairs else node.value:
            more, below, longer = _measure(inner, known)
            values, depth, length = values + more, max(depth, 1 + below), length + longer
    if values > _MOST:
        raise ValueError(f"it has more than {_MOST:,} values, with what its aliases stand for")
    if length > _LONGEST:
        raise ValueError(f"its values have more than {_LONGEST:,} characters, with what its aliases stand for")
    if depth > _DEEPEST:
        raise ValueError("it is nested too deeply")
    known[node] = values, depth, length
    return values, depth, length


class _Dumper(yaml.SafeDumper):
    pass


# YAML 1.1 asks for a dot and a signed exponent, and takes 1e-3 and 1.5e3 for strings.
_FLOAT = "tag:yaml.org,2002:float"
for _side in (_Loader, _Dumper):  # the dumper quotes what the loader would take for a number
    _side.add_implicit_resolver(_FLOAT, re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789"))
_Loader.add_constructor(_FLOAT, _Loader.construct_float)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_int)
