"""Turns a pydantic validation error into one line in the user's terms: keys as they are written in YAML."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from .keys import last

_Section = type[BaseModel]
_Variants = dict[str, _Section]  # of a discriminated union, by tag


def explain(error: ValidationError, model: _Section) -> tuple[list[str], str]:
    """The first error: the path of what is wrong, and a line that says where, what was expected and what came.

    An unknown key is reported first, since a misspelt key makes another one seem to be missing. The line suggests the
    closest match.
    """
    details = error.errors(include_url=False)
    first = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
    if first["type"] == "json_invalid":  # a lone surrogate, or lists inside lists without end
        return [], "a value is neither text nor a number that JSON can hold, or nested too deeply"
    path, section = _follow(first["loc"], model)
    field, message = ".".join(path), str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return path, f"unknown key {field}; {_neighbour(first['loc'], model)}"
    if first["type"] == "missing":
        _, parent = _follow(first["loc"][:-1], model)
        about = parent.model_fields[path[-1]].description if isinstance(parent, type) else None
        return path, f"{field} is missing" + (f": {about}" if about else "")
    if first["type"] == "value_error":
        own = isinstance(section, type) and message.split()[0] in section.model_fields
        return path, message if not path else f"{field}.{message}" if own else f"{field}: {message}"
    if first["type"] == "union_tag_invalid" and isinstance(section, dict):
        return path, f"{field}.kind must be one of {', '.join(section)}, got {shown(first['input']['kind'])}"
    if isinstance(section, type):
        message = f"Input should be a section with keys such as {next(iter(section.model_fields))}"
    elif isinstance(section, dict):
        message = f"Input should be one of {', '.join(section)}, or a section with its kind and keys"
    message = message.replace("a valid array", "a list").replace("a valid integer", "an integer")
    rule = message.removeprefix("Input should be ")
    expected = f" must be {rule}" if rule != message else f": {message[0].lower()}{message[1:]}"
    return path, f"{field}{expected}, got {shown(first['input'])}"


def _follow(loc: tuple[int | str, ...], model: _Section) -> tuple[list[str], _Section | _Variants | None]:
    """A location as the user writes it (without pydantic's variant tags), and the section or variants there."""
    path: list[str] = []
    here: _Section | _Variants | None = model
    for part in loc:
        if isinstance(here, dict) and part in here:
            here = here[str(part)]
        elif isinstance(part, int):
            path[-1] += f"[{part}]"
        else:
            path.append(part)
            here = _inside(here, part)
    return path, here


def _inside(section: _Section | _Variants | None, key: str) -> _Section | _Variants | None:
    field = section.model_fields.get(key) if isinstance(section, type) else None
    if field is None:
        return None
    if isinstance(tag := field.discriminator, str):
        return {variant.model_fields[tag].default: variant for variant in get_args(field.annotation)}
    return field.annotation if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel) else None


def _neighbour(loc: tuple[int | str, ...], model: _Section) -> str:
    """Suggests a key: the same name elsewhere, else a similar name here, else a similar or longer one elsewhere."""
    name = str(loc[-1])
    path, section = _follow(loc[:-1], model)
    _, union = _follow(loc[:-2], model)
    if isinstance(union, dict) and (kinds := [kind for kind, v in union.items() if name in v.model_fields]):
        return f"it belongs to {'.'.join(path)}.kind={' or '.join(kinds)}"
    here = list(section.model_fields) if isinstance(section, type) else []
    everywhere = list(dict.fromkeys(_keys(model)))
    found = [key for key in everywhere if last(key) == name]
    for keys in ([".".join([*path, key]) for key in here], everywhere):
        near = difflib.get_close_matches(name, map(last, keys), n=1)
        found = found or [key for key in keys if last(key) in near]
    found = found or [key for key in everywhere if name in last(key).split("_")]  # finds matrix_lr for lr
    return f"did you mean {' or '.join(found)}?" if found else f"valid keys: {', '.join(here)}"


def _keys(model: _Section, prefix: str = "") -> Iterator[str]:
    """Every key that can be set, as a dotted key."""
    for name in model.model_fields:
        inner = _inside(model, name)
        sections = list(inner.values()) if isinstance(inner, dict) else [inner] if inner else []
        for section in sections:
            yield from _keys(section, f"{prefix}{name}.")
        if not sections:
            yield prefix + name


def shown(value: Any) -> str:
    """A value as YAML would have it, cut to a length that fits in a line."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
