"""Configurations next to a given one: a few keys are changed, and others adjusted so that it can be trained."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from mlx_autoresearch.config.keys import differing, last, nest
from mlx_autoresearch.config.load import settings_of, validate_config
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import UserError

from .settings import Dimension


def neighbour(best: Mapping[str, Any], overrides: Mapping[str, Any], micro_tokens: int) -> Config | None:
    """`best` with `overrides`, and what has to follow from them; None where no valid configuration does.

    train.device_batch_size becomes the largest that divides the batch within `micro_tokens` tokens, head_dim divides
    n_embd, n_kv_head divides n_head, and the warmdown does not begin before the warmup has ended.
    """
    values = {**best, **overrides}
    rows, rest = divmod(values["train.total_batch_size"], values["model.sequence_len"])
    if rest:
        return None
    most = max(1, micro_tokens // values["model.sequence_len"])
    values["train.device_batch_size"] = max(d for d in range(1, min(rows, most) + 1) if rows % d == 0)
    if values["model.n_embd"] is not None and values["model.n_head"] is None:
        values["model.head_dim"] = math.gcd(values["model.n_embd"], values["model.head_dim"])
    late = 1 - values["train.warmup_ratio"]
    values["train.warmdown_ratio"] = min(values["train.warmdown_ratio"], round(late, 6))
    heads = values["model.n_kv_head"]
    config = _validated({**values, "model.n_kv_head": None})
    if config is None or heads is None:
        return config
    return _validated({**values, "model.n_kv_head": math.gcd(heads, config.gpt_config().n_head)})


def signature(config: Config) -> str:
    """Equal for configurations that train the same model in the same way, however they say it."""
    values = config.model_dump(mode="json", exclude={"model", "data", "evaluate"})
    return json.dumps([config.gpt_config().to_dict(), values], sort_keys=True)


def changes(best: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """The keys in which a configuration differs from `best`, with its values."""
    after = settings_of(config)
    return {key: after.get(key) for key in differing(best, after)}


def place(dimension: Dimension, value: Any) -> int:
    """Index of the grid's value that is `value`, or nearest to it; -1 for one that has no place on the grid."""
    values = dimension.values
    if value in values:
        return values.index(value)
    if not dimension.ordered or not isinstance(value, int | float):
        return -1
    numbers = [float(v) for v in values if isinstance(v, int | float)]
    return min(range(len(numbers)), key=lambda i: abs(numbers[i] - value))


def in_words(key: str, old: Any, new: Any, dimension: Dimension) -> str:
    """A one-line hypothesis: what changes and why that may help."""
    name = last(key)
    reason = dimension.down
    if isinstance(new, bool):
        text = f"turn {name} {'on' if new else 'off'}"
        reason = dimension.up if new else dimension.down
    elif isinstance(old, int | float) and isinstance(new, int | float):
        reason = dimension.up if new > old else dimension.down
        verb = {0.5: "halve", 2.0: "double"}.get(new / old if old else 0.0)
        text = (
            f"{verb} {name} to {new:g}"
            if verb
            else f"{'raise' if new > old else 'lower'} {name} from {old:g} to {new:g}"
        )
    elif new is None:
        text = f"drop {name} (was {_shown(old)})"
    else:
        text = f"set {name} to {_shown(new)}" + ("" if old is None else f" (was {_shown(old)})")
    return f"{text}: {reason}" if reason else text


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _validated(values: Mapping[str, Any]) -> Config | None:
    try:
        return validate_config(nest(values), "proposal")
    except UserError:
        return None
