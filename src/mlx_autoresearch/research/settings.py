"""A search's settings: the starting point, who proposes changes, how long to search, and how to decide.

A search file may be laid over another one with `base: other.yaml`, and its `start` over a configuration with
`start: {config: file.yaml, ...}`. Both paths are relative to the file that names them. A start that names its own
configuration replaces the base's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from mlx_autoresearch.config.explain import explain
from mlx_autoresearch.config.keys import differing, flatten, merge, nest, parse_setting
from mlx_autoresearch.config.load import load_config, validate_config
from mlx_autoresearch.config.settings import Config, Section
from mlx_autoresearch.config.yaml_text import dump_yaml, read_mapping, read_text
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.ledger.files import SETTINGS
from mlx_autoresearch.ledger.seeds import Seeds
from mlx_autoresearch.plain_text import one_line
from mlx_autoresearch.trials.limits import Limits

from .proposers.settings import AgentSettings, OptunaSettings, ScriptSettings

_MAY_CHANGE = ("experiments", "hours", "proposer", "limits")  # of a search that was started
_EXAMPLES = "the examples are in configs/research/"


class Decision(Section):
    """What is kept: see decision.py."""

    greedy: bool = Field(default=False, description="keep any improvement after one seed, as the reference does")
    false_keep_rate: float = Field(default=0.05, gt=0, lt=0.5, description="for a candidate without any effect")
    equivalence: float = Field(
        default=1.5,
        gt=0,
        le=10,
        description="standard deviations of one trial that count as equal for a simplification",
    )


class SearchConfig(Section):
    """One search, whole."""

    tag: str = Field(
        pattern=r"^[a-z0-9]([a-z0-9_-]*[a-z0-9])?$", max_length=60, description="names the branch research/TAG"
    )
    start: Config = Field(default=Config(), description="the starting point")
    proposer: Annotated[
        OptunaSettings | ScriptSettings | AgentSettings, Field(discriminator="kind", description="who proposes changes")
    ]
    experiments: int | None = Field(default=None, ge=1, description="stop after so many")
    hours: float | None = Field(default=None, gt=0, description="stop after so long")
    seeds: Seeds = Seeds()
    decision: Decision = Decision()
    remeasure_every: int = Field(default=20, ge=1, description="experiments after which the best is measured afresh")
    limits: Limits = Limits()

    @field_validator("proposer", mode="before")
    @classmethod
    def _with_kind(cls, proposer: Any) -> Any:
        return {"kind": "search", **proposer} if isinstance(proposer, dict) else proposer

    def to_yaml(self) -> str:
        """The resolved settings as YAML that `load_search` reads back to an equal one, wherever it lies."""
        return dump_yaml(self.model_dump(mode="json"))


def load_search(path: str | Path, overrides: Iterable[str] = ()) -> SearchConfig:
    """Read a search file, laid over its base, with `key=value` overrides such as `start.train.time_budget=10` on top.

    A path in an override is relative to the current folder. Raises UserError, in one line, for whatever is wrong with a
    file, a key or a value.
    """
    path = Path(path)
    values = _layers(path, [])
    for override in overrides:
        key, value = parse_setting(override, "key=value, as in experiments=10")
        values = merge(values, nest({key: value}))
    if isinstance(values.get("start"), str):
        values["start"] = {"config": values["start"]}
    if isinstance(values.get("start"), dict):
        values["start"] = _start(values["start"], path)
    try:
        return SearchConfig.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error, SearchConfig)[1]}") from None


def changed_settings(before: SearchConfig, now: SearchConfig) -> list[str]:
    """The keys that differ between the settings that a search was started with and those it is resumed with: each in
    one line, with its values. Raises UserError for one that results depend on.
    """
    old, new = (flatten(config.model_dump(mode="json")) for config in (before, now))
    changed = {key: f"{key} was {_shown(old, key)}, and is {_shown(new, key)} now" for key in differing(old, new)}
    for key, line in changed.items():
        if key.partition(".")[0] not in _MAY_CHANGE:
            raise UserError(f"{line}, and results depend on it: put it back, or start a new search with another tag")
    return list(changed.values())


def _shown(settings: dict[str, Any], key: str) -> str:
    return one_line(json.dumps(settings[key]), 60) if key in settings else "not there"


def tag_of(home: Path) -> str:
    """The tag of the search in `home`, whose folder may have been renamed; of any version."""
    path = home / SETTINGS
    if not path.is_file():
        return home.name
    tag = read_mapping(path, "search's settings", ["tag"], "restore it").get("tag")
    return tag if isinstance(tag, str) else home.name


def _start(given: dict[str, Any], path: Path) -> dict[str, Any]:
    sections = {key: value for key, value in given.items() if key != "config"}
    if not isinstance(given.get("config", ""), str):
        raise UserError(f"{path}: start.config must be the path of a configuration, got {given['config']!r:.60}")
    if "config" not in given:  # whole, as in settings that were resolved, and not laid over anything
        return validate_config(sections, f"{path}: start").model_dump(mode="json")
    try:
        config = load_config(given["config"], [f"{key}={json.dumps(v)}" for key, v in flatten(sections).items()])
    except UserError as error:
        raise UserError(f"{path}: start: {error}") from None
    return config.model_dump(mode="json")


def _layers(path: Path, above: list[Path]) -> dict[str, Any]:
    """The file's values over those of its base, with paths that no longer depend on where the file lies."""
    if path.resolve() in above:
        raise UserError(f"{path} is its own base")
    values = read_mapping(path, "search file", SearchConfig.model_fields, _EXAMPLES)
    start = values.get("start")
    if isinstance(start, str):
        start = values["start"] = {"config": start}
    if isinstance(start, dict) and isinstance(start.get("config"), str):
        values["start"] = start | {"config": str(path.parent / start["config"])}
    proposer = values.get("proposer")
    steps = proposer.get("steps") if isinstance(proposer, dict) else None
    for step in steps if isinstance(steps, list) else []:
        if isinstance(step, dict) and isinstance(step.get("patch_file"), str):
            step["patch"] = read_text(path.parent / step.pop("patch_file"), "patch", f"{path} names it")
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise UserError(f"{path}: base must be the path of a search file, got {base!r:.60}")
    below = _layers(path.parent / base, [*above, path.resolve()])
    if isinstance(values.get("start"), dict) and "config" in values["start"]:
        below.pop("start", None)  # what was said about another configuration
    return merge(below, values)
