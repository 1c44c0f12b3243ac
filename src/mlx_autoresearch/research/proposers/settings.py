"""The settings of each proposer: the section `proposer:` of a search file."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from mlx_autoresearch.config.keys import require_distinct
from mlx_autoresearch.config.load import check_key, check_name
from mlx_autoresearch.config.settings import Section

Value = JsonValue


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
        try:
            require_distinct(self.choices or [])
        except ValueError as error:
            raise ValueError(f"choices {error}") from None
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
    """One change in words and values: new ones, or with `times`, what the best's are multiplied by.

    "Halve the batch" is true of every start with `times: {train.total_batch_size: 0.5}`.
    """

    hypothesis: str = Field(min_length=1, max_length=200)
    kind: str = Field(default="other", min_length=1, max_length=40)
    overrides: dict[str, Value] = Field(default={}, description="dotted configuration keys and their values")
    times: dict[str, float] = Field(default={}, description="dotted configuration keys and factors of their values")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.overrides and not self.times:
            raise ValueError("a move needs overrides or times")
        if both := self.overrides.keys() & self.times.keys():
            raise ValueError(f"{min(both)} is in overrides and in times")
        for key, factor in self.times.items():
            if not factor > 0 or factor == 1:
                raise ValueError(f"times: {key} must be a positive factor other than 1, got {factor:g}")
        return self


class OptunaSettings(Section):
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
        for key in (key for move in self.moves for key in move.times):
            check_name(key)
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


class ScriptSettings(Section):
    """A fixed list of experiments, for tests and replays."""

    kind: Literal["script"] = "script"
    steps: list[Step] = Field(min_length=1)


class AgentSettings(Section):
    """A coding agent on the command line. It gets the brief on its standard input and edits the worktree."""

    kind: Literal["agent"] = "agent"
    preset: Literal["claude", "codex", "gemini"] | None = Field(default=None, description="a known agent's command")
    command: list[str] | None = Field(default=None, min_length=1, description="the program and its arguments")
    extra: list[str] = Field(default=[], description="arguments added to a preset's, such as --model")
    minutes: float = Field(default=15.0, gt=0, le=1440, description="time for one proposal")
    environment: list[str] = Field(default=[], description="further variables that the agent needs, such as API keys")
    writable: list[str] = Field(default=[], description="further paths it may write to, such as its own settings")
    readable: list[str] = Field(default=[], description="further paths it may read, such as programs that it starts")
    own_sandbox: bool = Field(
        default=False, description="it confines its own commands with sandbox-exec; on macOS it then is not confined"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.preset is None) == (self.command is None):
            raise ValueError("give either a preset (claude, codex, gemini) or a command")
        return self
