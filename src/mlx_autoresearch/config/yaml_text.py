"""Reads and writes YAML in which `1e-3` is a number and a key that is given twice is an error."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from mlx_autoresearch.errors import UserError


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
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ValueError(getattr(error, "reason", "it cannot be parsed")) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def dump_yaml(value: Any) -> str:
    """`value`, of plain types, as text that `parse_yaml` reads back to an equal one."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
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
        number = self.construct_yaml_float(node)
        return int(number) if number.is_integer() and "e" in node.value.lower() else number  # 1e6 steps


class _Dumper(yaml.SafeDumper):
    pass


# YAML 1.1 asks for a dot and a signed exponent, and takes 1e-3 and 1.5e3 for strings.
_FLOAT = "tag:yaml.org,2002:float"
for _side in (_Loader, _Dumper):  # the dumper quotes what the loader would take for a number
    _side.add_implicit_resolver(_FLOAT, re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789"))
_Loader.add_constructor(_FLOAT, _Loader.construct_float)
