"""The rules: which settings an experiment may change, and what is wrong with a change of its files."""

from __future__ import annotations

from fnmatch import fnmatchcase

from mlx_autoresearch.config.keys import differing
from mlx_autoresearch.config.load import settings_of, validate_config
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.config.yaml_text import parse_yaml
from mlx_autoresearch.errors import UserError

from ..editable import CODE, EXPERIMENT, is_editable
from ..workspace import Change, Workspace
from .scan import scan

FROZEN = (  # settings, as patterns of dotted keys; data.* and evaluate.* decide the metric
    "data.*",
    "evaluate.*",
    "train.time_budget",
    "train.max_steps",
    "train.checkpoint_every",
    "train.seed",
)
# Text that is read; written so, also where case is ignored.
SOURCES = (".py", ".metal", ".h", ".cu", ".cuh", ".yaml", ".md", ".txt")


def check_change(workspace: Workspace, change: Change, parent: str, commit: str) -> list[str]:
    """What is wrong with a commit: files out of bounds, a missing recipe, code that does what it must not; one line
    each.
    """
    problems = []
    for path in sorted(change.status):
        if not is_editable(path):
            problems.append(f"{path} may not be changed")
        elif change.status[path] != "D" and not path.endswith(SOURCES):
            problems.append(f"{path} is no source: files of an experiment end in {', '.join(SOURCES)}")
        elif path.endswith(".py") and (new := workspace.read(commit, path)) is not None:
            problems += scan(path, new, workspace.read(parent, path))
    if "D" in change.status.values() and not workspace.has_code(commit):
        problems.append(f"{CODE[0]} is gone")
    return problems


def read_config(text: bytes | None) -> Config:
    """The configuration in an experiment's YAML, whoever wrote it. Raises UserError with one line."""
    if text is None:
        raise UserError(f"{EXPERIMENT} is gone")
    try:
        values = parse_yaml(text.decode("utf-8"))
    except UnicodeDecodeError:
        raise UserError(f"{EXPERIMENT} is not UTF-8 text") from None
    except ValueError as error:
        raise UserError(f"{EXPERIMENT} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{EXPERIMENT} must be a mapping of sections")
    return validate_config(values, EXPERIMENT)


def is_frozen(key: str) -> bool:
    """Whether an experiment must leave this setting, a dotted key, as it is."""
    return any(fnmatchcase(key, pattern) for pattern in FROZEN)


def check_frozen(config: Config, start: Config) -> list[str]:
    """Frozen settings that differ from the starting point's, one line each."""
    old, new = settings_of(start), settings_of(config)
    return [
        f"{key} may not be changed: it is {old.get(key)!r}, got {new.get(key)!r}"
        for key in differing(old, new)
        if is_frozen(key)
    ]
