"""Dotted keys: `train.time_budget` for the nested `{"train": {"time_budget": ...}}`, there and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlx_autoresearch.errors import UserError

from .yaml_text import parse_yaml


def place(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested `values`; what is no mapping on the way gives place to one."""
    *sections, name = key.split(".")
    for section in sections:
        if not isinstance(values.get(section), dict):
            values[section] = {}
        values = values[section]
    values[name] = value


def last(key: str) -> str:
    """The last part of a dotted key: the setting's own name."""
    return key.rpartition(".")[2]


def nest(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested mappings."""
    values: dict[str, Any] = {}
    for key, value in settings.items():
        place(values, key, value)
    return values


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys; an empty one is a value. A data source stays whole: its kind decides its keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value and prefix + key != "data.source":
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, key by key; a mapping of another kind replaces what is below whole.

    Not so in the section `recipe`, where `kind` is a name like any other.
    """
    merged = dict(below)
    for key, new in above.items():
        old = merged.get(key)
        if key == "source" and isinstance(old, str):
            old = {"kind": old}
        if isinstance(old, dict) and isinstance(new, dict):
            same_kind = key == "recipe" or new.get("kind", old.get("kind")) == old.get("kind")
            new = merge(old, new) if same_kind else new
        merged[key] = new
    return merged


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The names, sorted, whose values differ, or that one side lacks: None is a value."""
    missing = object()
    return sorted(n for n in before.keys() | after.keys() if before.get(n, missing) != after.get(n, missing))


def parse_setting(text: str, form: str) -> tuple[str, Any]:
    """`key=value` with a YAML value, as (key, value). Raises UserError, which says how a setting is written: `form`."""
    key, equals, value = text.partition("=")
    if not equals or not all(part.isidentifier() for part in key.split(".")):
        raise UserError(f"cannot read {text!r}: a setting is written {form}")
    try:
        return key, parse_yaml(value)
    except ValueError as error:
        raise UserError(f"cannot read {text!r}: the value is not valid YAML, {error}") from None


def require_distinct(values: Sequence[Any]) -> None:
    """Raise ValueError for two values that count as one: 1 and 1.0 set the same number, and 1 equals true."""
    for later, value in enumerate(values):
        for earlier in values[:later]:
            if value == earlier:
                one, other = json.dumps(earlier), json.dumps(value)
                what = f"the value {one} twice" if one == other else f"both {one} and {other}, which are the same value"
                raise ValueError(f"has {what}")
