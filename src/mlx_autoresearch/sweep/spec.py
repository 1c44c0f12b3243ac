"""A sweep's YAML file: the configuration, the settings to vary, their values, and the method."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from mlx_autoresearch.config.explain import explain
from mlx_autoresearch.config.keys import last, require_distinct
from mlx_autoresearch.config.load import check_name, load_config
from mlx_autoresearch.config.settings import Config, Section
from mlx_autoresearch.config.yaml_text import read_mapping
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.recipe.settings import recipe_settings

_MOST_POINTS = 10_000


@dataclass(frozen=True)
class Choices:
    """One of a list of values, of any type that YAML has."""

    values: tuple[Any, ...]

    @property
    def points(self) -> list[Any]:
        """The values of a grid."""
        return list(self.values)

    def draw(self, rng: random.Random) -> Any:
        """One value at random, all alike."""
        return rng.choice(self.values)


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included; integers where all of them are given as such."""

    low: float
    high: float
    step: float | None = None
    log: bool = False

    @property
    def integers(self) -> bool:
        """Whether its values are integers."""
        return all(isinstance(x, int) for x in (self.low, self.high, self.step or 1))

    @property
    def points(self) -> list[float]:
        """The values of a grid; empty for a range of real numbers without step."""
        if self.step is None:
            return list(range(int(self.low), int(self.high) + 1)) if self.integers and not self.log else []
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        return [self.low + i * self.step for i in range(count)]

    def draw(self, rng: random.Random) -> float:
        """One number at random, uniform; uniform in its logarithm where `log` is set."""
        if self.step is not None or (self.integers and not self.log):
            return rng.choice(self.points)
        if not self.log:
            return rng.uniform(self.low, self.high)
        value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        value = min(max(value, self.low), self.high)
        return round(value) if self.integers else value


Axis = Choices | Range


class Prune(Section):
    """Stop a point whose training loss is above the median of the others' at the same share of the budget."""

    trials: int = Field(default=5, ge=1, description="points that run to their end first")
    after: float = Field(default=0.3, ge=0, lt=1, description="share of the budget that every point gets")


class Sweep(Section):
    """The fields of configs/sweeps/*.yaml."""

    config: str = Field(description="the configuration that is varied, a path relative to the sweep's file")
    settings: dict[str, Any] = Field(default={}, description="settings that all points share, over that configuration")
    space: dict[str, Any] = Field(
        description="what is varied: a list of values, or low, high, step and log, by setting"
    )
    method: Literal["grid", "random", "tpe"] = "grid"
    trials: int | None = Field(
        default=None, ge=1, le=_MOST_POINTS, description="points to try; a grid tries all it has"
    )
    seeds: list[int] = Field(default=[42], min_length=1, description="runs of each point; their mean is compared")
    prune: Prune | None = None
    storage: str | None = Field(default=None, description="an Optuna storage URL in place of the journal file")

    @field_validator("space")
    @classmethod
    def _axes(cls, space: dict[str, Any]) -> dict[str, Any]:
        if not space:
            raise ValueError("space names no setting to vary, as in optimizer.matrix_lr: [0.02, 0.04]")
        for key, value in space.items():
            parse_axis(key, value)
        return space

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, got {self.seeds}")
        if both := self.settings.keys() & self.space.keys():
            raise ValueError(f"{min(both)} is in both settings and space")
        if fixed := {"train.seed"} & (self.settings.keys() | self.space.keys()):
            raise ValueError(f"{min(fixed)} is set by seeds")
        if self.method == "grid":
            if self.trials is not None:
                raise ValueError("trials has no effect on a grid, which tries every point: leave it out")
            for key, axis in self.axes.items():
                if not axis.points:
                    raise ValueError(f"a grid needs a list of values or a step for {key}")
            if (size := math.prod(len(axis.points) for axis in self.axes.values())) > _MOST_POINTS:
                raise ValueError(f"the grid has {size:,} points, more than {_MOST_POINTS:,}: use random or tpe")
        elif self.trials is None:
            raise ValueError(f"trials is missing: say how many points {self.method} may try")
        return self

    @property
    def axes(self) -> dict[str, Axis]:
        """The values of each setting that is varied."""
        return {key: parse_axis(key, value) for key, value in self.space.items()}

    def points(self) -> list[dict[str, Any]]:
        """The points in the order they are tried; an empty one is chosen by the sampler when its turn comes.

        No point is drawn twice: one that cannot be trained would be rejected again, and another bring nothing new.
        """
        axes = self.axes
        if self.method == "grid":
            values = itertools.product(*(axis.points for axis in axes.values()))
            return [dict(zip(axes, point, strict=True)) for point in values]
        # Drawn here and not by a sampler: the same in every process, and after every restart.
        drawn = self.trials or 0 if self.method == "random" else min(self.trials or 0, TPE_STARTUP)
        points: list[dict[str, Any]] = []
        for index in range(drawn):
            rng = random.Random(f"sweep {index}")
            draws = ({key: axis.draw(rng) for key, axis in axes.items()} for _ in range(_DRAWS))
            if (new := next((point for point in draws if point not in points), None)) is None:
                break  # as good as every point of the axes has been drawn
            points.append(new)
        return points + ([{}] * ((self.trials or 0) - drawn) if self.method == "tpe" else [])


_DRAWS = 1000  # for one new point
TPE_STARTUP = 10  # random points before TPE has something to learn from, Optuna's own number


def parse_axis(key: str, value: Any) -> Axis:
    """The values of one setting. Raises ValueError with a line that says what was expected."""
    if isinstance(value, list):
        if not value:
            raise ValueError(f"{key} is an empty list: give the values to try")
        try:
            require_distinct(value)
        except ValueError as error:
            raise ValueError(f"{key} {error}") from None
        return Choices(tuple(value))
    if not isinstance(value, dict) or not {"low", "high"} <= value.keys() <= {"low", "high", "step", "log"}:
        raise ValueError(f"{key} must be a list of values, or low and high with step or log, got {json.dumps(value)}")
    low, high, step, log = value["low"], value["high"], value.get("step"), value.get("log", False)
    if not all(
        isinstance(x, int | float) and not isinstance(x, bool) for x in (low, high, 1 if step is None else step)
    ):
        raise ValueError(f"{key}: low, high and step must be numbers, got {json.dumps(value)}")
    if not isinstance(log, bool):
        raise ValueError(f"{key}: log must be true or false, got {json.dumps(log)}")
    if not low < high:
        raise ValueError(f"{key}: low must be less than high, got {low} and {high}")
    if step is not None and (log or not 0 < step <= high - low):
        raise ValueError(f"{key}: step must be positive, fit between low and high, and go without log, got {step}")
    if log and low <= 0:
        raise ValueError(f"{key}: a logarithmic range must be positive, got low {low}")
    return Range(low, high, step, log)


def load_sweep(path: str | Path) -> Sweep:
    """Read a sweep's file. Raises UserError, in one line, for whatever is wrong with it."""
    path = Path(path)
    values = read_mapping(path, "sweep file", Sweep.model_fields, "the examples are in configs/sweeps/")
    try:
        sweep = Sweep.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error, Sweep)[1]}") from None
    sweep = sweep.model_copy(update={"config": str(path.parent / sweep.config)})
    for key in [*sweep.settings, *sweep.space]:
        try:
            check_name(key)
        except ValueError as error:
            raise UserError(f"{path}: {error}") from None
    return sweep


def config_at(sweep: Sweep, point: Mapping[str, Any]) -> Config:
    """The configuration of one point. Raises UserError when its values do not go together."""
    settings = sweep.settings | dict(point)
    config = load_config(sweep.config, [f"{key}={json.dumps(value)}" for key, value in settings.items()])
    recipe_settings(config.recipe)
    return config


def check_points(sweep: Sweep) -> Config:
    """Try every point that is known beforehand, without running any; returns the first one's configuration.

    Raises UserError for a point of a grid that cannot be trained, and for random points of which none can; others are
    recorded as rejected when their turn comes.
    """
    first: Config | None = None
    problem = ""
    for point in filter(None, sweep.points()):
        try:
            first = first or config_at(sweep, point)
            if sweep.method == "grid":
                config_at(sweep, point)
        except UserError as error:
            problem = problem or f"the point {describe(point)} cannot be trained: {error}"
            if sweep.method == "grid":
                break
    if first is None or (problem and sweep.method == "grid"):
        raise UserError(problem)
    return first


def describe(point: Mapping[str, Any]) -> str:
    """`key=value, ...`, floats with four digits."""
    return ", ".join(f"{key}={short(value)}" for key, value in point.items())


def short(value: Any) -> str:
    """A value as YAML has it, floats with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value).strip('"')


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """The last part of each dotted key, or the whole key where another ends alike."""
    keys = list(keys)
    names = [last(key) for key in keys]
    return {key: name if names.count(name) == 1 else key for key, name in zip(keys, names, strict=True)}
