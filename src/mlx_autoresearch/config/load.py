"""Reads a configuration: defaults <- YAML file <- ``section.key=value`` settings, later ones winning."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mlx_autoresearch.errors import UserError

from .explain import explain
from .keys import flatten, merge, nest, parse_setting, place
from .settings import Config
from .yaml_text import read_mapping


def split_settings(arguments: Iterable[str]) -> tuple[str | None, list[str]]:
    """Tell the YAML file from the ``section.key=value`` overrides among a command's arguments, in any order.

    An override has an "=" with no "/" before it. Raises UserError for more than one file.
    """
    overrides, files = [], []
    for argument in arguments:
        (overrides if "=" in argument and "/" not in argument.partition("=")[0] else files).append(argument)
    if len(files) > 1:
        raise UserError(f"expected one YAML file, then section.key=value settings, got the files {', '.join(files)}")
    return (files[0] if files else None), overrides


def load_config(path: str | Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """Build a configuration from defaults, a YAML file and ``section.key=value`` overrides, in this order.

    A data source of another kind takes the place of the file's whole source, whose other fields would not fit it.
    Raises UserError, in one line: missing or unreadable file, invalid YAML, unknown key (the closest match is
    suggested), wrong type, value out of range, a broken rule between fields, or a time_budget that max_steps overrules.
    """
    values = {} if path is None else _read(Path(path))
    given: dict[str, Any] = {}
    for override in overrides:
        key, value = parse_setting(override, "section.key=value, as in train.time_budget=30")
        place(given, "data.source.kind" if key == "data.source" and isinstance(value, str) else key, value)
    config = _validate(merge(values, given), lambda field: "" if path is None or _holds(given, field) else str(path))
    if config.train.max_steps is not None and _holds(given, ["train", "time_budget"]):
        raise UserError(
            f"train.time_budget has no effect while train.max_steps is {config.train.max_steps}: "
            "add train.max_steps=null to train by time"
        )
    return config


def validate_config(values: Mapping[str, Any], origin: str) -> Config:
    """Validate nested values; `origin` names them in the error. Raises UserError with one line."""
    return _validate(values, lambda field: origin)


def settings_of(config: Config) -> dict[str, Any]:
    """Every setting of a configuration by its dotted key, as JSON has it."""
    flat = flatten(config.model_dump(mode="json"))
    return {key: value for key, value in flat.items() if (key, value) != ("recipe", {})}  # no setting, not an empty one


def with_settings(config: Config, settings: Mapping[str, Any], origin: str) -> Config:
    """`config` with dotted keys set. Raises UserError for unknown keys and values that do not validate."""
    values = config.model_dump(mode="json")
    for key, value in settings.items():
        place(values, key, value)
    return validate_config(values, origin)


def check_name(key: str) -> None:
    """Raise ValueError, which suggests the closest match, where no configuration has the dotted key `key`."""
    try:
        _strictly(nest({key: None}))
    except ValidationError as error:
        if any(e["type"] == "extra_forbidden" for e in error.errors()):
            raise ValueError(explain(error, Config)[1]) from None


def check_key(key: str, value: Any) -> None:
    """Raise ValueError, as `check_name` does, and also where no configuration takes `value` at `key`."""
    try:
        _strictly(nest({key: value}))
    except ValidationError as error:
        if error.errors()[0]["type"] != "value_error":  # a rule between fields may hold once others change, too
            raise ValueError(explain(error, Config)[1]) from None


def _strictly(values: Mapping[str, Any]) -> Config:
    # As JSON, because in strict mode, where "5" and true are no numbers, lists pass for tuples only there.
    return Config.model_validate_json(json.dumps(values, default=str), strict=True)


def _validate(values: Mapping[str, Any], origin: Callable[[list[str]], str]) -> Config:
    try:
        return _strictly(values)
    except ValidationError as error:
        field, problem = explain(error, Config)
        raise UserError(f"{where}: {problem}" if (where := origin(field)) else problem) from None
    except (ValueError, RecursionError) as error:  # json's: a circular reference, or an integer of too many digits
        what = "has too many digits" if "digits" in str(error) else "must not contain itself"
        raise UserError(f"{origin([]) or 'a setting'}: a value {what}") from None


def _read(path: Path) -> dict[str, Any]:
    return read_mapping(path, "configuration file", Config.model_fields, _instead_of(path))


def _instead_of(path: Path) -> str:
    """Advice for a missing file: the file, or the setting, that was probably meant."""
    if path.suffix not in (".yaml", ".yml"):
        return "a setting is written section.key=value"
    there = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, there, n=1)
    return f"did you mean {path.parent / near[0]}?" if near else "the examples are in configs/"


def _holds(values: dict[str, Any], field: list[str]) -> bool:
    """Whether nested `values` set `field`, or something inside it."""
    for part in field:
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return bool(field)
