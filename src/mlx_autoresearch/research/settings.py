"""What a night of research is: the starting point, who proposes, how long, and how it is decided.

A research file may be laid over another one with `base: other.yaml`, and its `start` over a configuration with
`start: {config: file.yaml, ...}`; both paths are relative to the file that names them. A start that names its own
configuration replaces the base's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator

from mlx_autoresearch.config.explain import explain
from mlx_autoresearch.config.keys import flatten, merge, nest, parse_setting
from mlx_autoresearch.config.load import check_key, load_config, validate_config
from mlx_autoresearch.config.settings import Config, Section
from mlx_autoresearch.config.yaml_text import dump_yaml, read_mapping, read_text
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.trials.limits import Limits

Value = JsonValue
_EXAMPLES = "the examples are in configs/research/"
Overrides = Annotated[dict[str, Value], Field(min_length=1, description="dotted configuration keys and their values")]


class Seeds(Section):
    """How often a configuration is run.

    Seeds come in windows of `size`: each fresh measurement of the best starts the next window, so that neither the luck
    that made it the best nor the same few seeds decide the whole night.
    """

    first: int = Field(default=42, ge=0, lt=2**31)
    baseline: int = Field(default=4, ge=2, le=64, description="runs of the starting point, to learn the noise")
    best: int = Field(default=2, ge=1, le=64, description="fresh runs of a new best")
    most: int = Field(default=4, ge=1, le=64, description="runs of one candidate, at most")

    @property
    def size(self) -> int:
        """Seeds of one window."""
        return max(self.baseline, self.best, self.most)

    def window(self, number: int) -> list[int]:
        """The seeds of window 0, 1, ..."""
        start = self.first + number * self.size
        return list(range(start, start + self.size))


class Decision(Section):
    """What is kept; see decision.py."""

    greedy: bool = Field(default=False, description="keep any improvement after one seed, as the reference does")
    false_keep_rate: float = Field(default=0.05, gt=0, lt=0.5, description="for a candidate without any effect")
    equivalence: float = Field(
        default=1.5, gt=0, le=10, description="standard deviations of one run that count as equal for a simplification"
    )


class Dimension(Section):
    """The values that a configuration key may take: `choices`, or a grid of `points` from `low` to `high`."""

    choices: list[Value] | None = Field(default=None, min_length=2)
    low: float | None = None
    high: float | None = None
    log: bool = Field(default=False, description="equal ratios between the points, not equal differences")
    points: int = Field(default=9, ge=2, le=101)
    kind: str = Field(default="other", min_length=1, max_length=40, description="what sort of change it is")
    up: str = Field(default="", max_length=120, description="why a larger value may help")
    down: str = Field(default="", max_length=120, description="why a smaller value, or another choice, may help")

    @model_validator(mode="after")
    def _check(self) -> Self:
        ranged = self.low is not None and self.high is not None
        if ranged == (self.choices is not None) or (self.low is None) != (self.high is None):
            raise ValueError("give either choices, or low and high")
        if self.low is not None and self.high is not None and not (0 if self.log else -1e300) < self.low < self.high:
            raise ValueError(f"low must be below high{', and above 0 where log is true' if self.log else ''}")
        return self

    @property
    def values(self) -> list[Value]:
        """The grid; numbers of a range have two significant digits."""
        if self.choices is not None or self.low is None or self.high is None:
            return list(self.choices or [])
        at = [i / (self.points - 1) for i in range(self.points)]
        if self.log:
            grid = [self.low * (self.high / self.low) ** x for x in at]
        else:
            grid = [self.low + (self.high - self.low) * x for x in at]
        return list(dict.fromkeys(float(f"{x:.2g}") for x in grid))

    @property
    def ordered(self) -> bool:
        """Whether a neighbouring value is a smaller change than one further away."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)


class Move(Section):
    """One change in words and values."""

    hypothesis: str = Field(min_length=1, max_length=200)
    kind: str = Field(default="other", min_length=1, max_length=40)
    overrides: Overrides


class Search(Section):
    """Optuna over a declared space, one small change of the current best at a time."""

    kind: Literal["search"] = "search"
    seed: int = Field(default=0, ge=0, lt=2**31)
    space: dict[str, Dimension] = Field(min_length=1, description="dotted configuration keys")
    moves: list[Move] = Field(default=[], description="what to try first, in this order")

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key, value in [(k, v) for k, d in self.space.items() for v in d.values[:1]] + [
            (k, v) for move in self.moves for k, v in move.overrides.items()
        ]:
            check_key(key, value)
        return self


class Step(Section):
    """One experiment of a script: overrides, a patch, or both."""

    hypothesis: str = Field(min_length=1, max_length=200)
    kind: str = Field(default="other", min_length=1, max_length=40)
    overrides: dict[str, Value] = Field(default={})
    patch: str | None = Field(default=None, description="a unified diff, as `git diff` prints it")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.overrides and not self.patch:
            raise ValueError("a step needs overrides, a patch or a patch_file")
        for key, value in self.overrides.items():
            check_key(key, value)
        return self


class Script(Section):
    """A fixed list of experiments, for tests and replays."""

    kind: Literal["script"] = "script"
    steps: list[Step] = Field(min_length=1)


class Agent(Section):
    """A coding agent on the command line. It gets the brief on its standard input and edits the worktree."""

    kind: Literal["agent"] = "agent"
    preset: Literal["claude", "codex", "gemini"] | None = Field(default=None, description="a known agent's command")
    command: list[str] | None = Field(default=None, min_length=1, description="the program and its arguments")
    extra: list[str] = Field(default=[], description="arguments added to a preset's, such as --model")
    minutes: float = Field(default=15.0, gt=0, le=1440, description="time for one proposal")
    environment: list[str] = Field(default=[], description="further variables that the agent needs, such as API keys")
    writable: list[str] = Field(default=[], description="further paths it may write to, such as its own settings")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.preset is None) == (self.command is None):
            raise ValueError("give either a preset (claude, codex, gemini) or a command")
        return self


class ResearchConfig(Section):
    """One night of research."""

    tag: str = Field(
        pattern=r"^[a-z0-9]([a-z0-9_-]*[a-z0-9])?$", max_length=60, description="names the branch research/TAG"
    )
    start: Config = Field(default=Config(), description="the starting point")
    proposer: Annotated[Search | Script | Agent, Field(discriminator="kind", description="who proposes changes")]
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
        """The resolved research as YAML that `load_research` reads back to an equal one, wherever it lies."""
        return dump_yaml(self.model_dump(mode="json"))


def load_research(path: str | Path, overrides: Iterable[str] = ()) -> ResearchConfig:
    """Read a research file, laid over its base, with `key=value` overrides such as `start.train.time_budget=10` on top.

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
        return ResearchConfig.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error, ResearchConfig)[1]}") from None


def _start(given: dict[str, Any], path: Path) -> dict[str, Any]:
    sections = {key: value for key, value in given.items() if key != "config"}
    if not isinstance(given.get("config", ""), str):
        raise UserError(f"{path}: start.config must be the path of a configuration, got {given['config']!r:.60}")
    if "config" not in given:  # whole, as in a research that was resolved, and not laid over anything
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
    values = read_mapping(path, "research file", ResearchConfig.model_fields, _EXAMPLES)
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
        raise UserError(f"{path}: base must be the path of a research file, got {base!r:.60}")
    below = _layers(path.parent / base, [*above, path.resolve()])
    if isinstance(values.get("start"), dict) and "config" in values["start"]:
        below.pop("start", None)  # what was said about another configuration
    return merge(below, values)
