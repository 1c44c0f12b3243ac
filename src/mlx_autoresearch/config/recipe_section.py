"""Reads the configuration's free section `recipe:` into the settings that the recipe declares, errors in one line."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import Field, fields
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from mlx_autoresearch.errors import UserError

from .explain import shown

T = TypeVar("T")
_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a string", NoneType: "null"}


def read_settings(declared: type[T], values: Mapping[str, Any]) -> T:
    """An instance of `declared`, a frozen dataclass with a field for each setting, from the section's `values`.

    A field's type is bool, int, float, str, None, a Literal, list[...], tuple[...] or a union of these; every field has
    a default. `__post_init__` may check ranges and raise ValueError. Raises UserError, naming recipe.<key>, for an
    unknown key, a value of another type, a failed check, or a declaration that is none of the above.
    """
    settings = {field.name: field for field in fields(declared)}  # type: ignore[arg-type]
    given = {}
    for key, value in values.items():
        if key not in settings:
            raise UserError(f"unknown key recipe.{key}; {_instead(key, list(settings))}")
        given[key] = _value(settings[key], value)
    try:
        return declared(**given)
    except (ValueError, TypeError, ArithmeticError, AttributeError, LookupError) as error:
        message = str(error) or f"{type(error).__name__} in __post_init__ of {declared.__name__}"
        own = message.split(" ")[0] in settings
        raise UserError(f"recipe.{message}" if own else f"recipe: {message}") from None


def _instead(key: str, settings: list[str]) -> str:
    if not settings:
        return "this recipe declares no settings (they stand in recipe/settings.py)"
    near = difflib.get_close_matches(key, settings, n=1)
    return f"did you mean recipe.{near[0]}?" if near else f"valid keys: {', '.join(settings)}"


def _value(field: Field[Any], value: Any) -> Any:
    words = _describe(field.type, field.name)
    try:
        return _as(field.type, value)
    except ValueError:
        raise UserError(f"recipe.{field.name} must be {words}, got {shown(value)}") from None


def _as(kind: Any, value: Any) -> Any:
    """`value`, of JSON's types, as a `kind`: an integer also as a float, a list also as a tuple; else ValueError."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        for option in sorted(args, key=lambda option: option is float):  # 1 is an int before it is a float
            try:
                return _as(option, value)
            except ValueError:
                continue
        raise ValueError
    if origin is Literal:
        if not any(type(option) is type(value) and option == value for option in args):
            raise ValueError
        return value
    if origin in (list, tuple):
        kinds = args[:1] * len(value) if isinstance(value, list) and (origin is list or ... in args) else args
        if not isinstance(value, list) or len(kinds) != len(value):
            raise ValueError
        return origin(_as(k, v) for k, v in zip(kinds, value, strict=True))
    if kind is float and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    if value is None if kind is None else type(value) is kind:
        return value
    raise ValueError


def _describe(kind: Any, name: str) -> str:
    """A type in words. Only known types pass: annotations are never evaluated, since the recipe may be untrusted."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(_describe(option, name) for option in args)
    if origin is Literal:
        return " or ".join(map(str, args))
    if origin is list or (origin is tuple and ... in args):
        return f"a list, each entry {_describe(args[0], name)}"
    if origin is tuple:
        return f"a list of {len(args)}: {', '.join(_describe(option, name) for option in args)}"
    try:
        return _WORDS[NoneType if kind is None else kind]
    except (KeyError, TypeError):
        raise UserError(
            f"the recipe's setting {name} has the type {kind!r}: expected bool, int, float, str, None, Literal, list "
            "or tuple, written without quotes and without `from __future__ import annotations`"
        ) from None
