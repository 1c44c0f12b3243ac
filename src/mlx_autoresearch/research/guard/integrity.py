"""What results depend on stays as it was at the start, and untrusted code leaves alone what is not its own."""

from __future__ import annotations

import json
from collections.abc import Mapping

from mlx_autoresearch.config.keys import differing
from mlx_autoresearch.data.prepared import open_prepared
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.machine.files import write_atomically
from mlx_autoresearch.machine.paths import cache_dir
from mlx_autoresearch.sandbox import landlock

from ..home import CONFIG, LEDGER, Storage
from ..settings import ResearchConfig
from . import rules

_STATE = "state.json"


def trusted_state(config: ResearchConfig) -> dict[str, str]:
    """SHA-256 of what every result depends on: the installed code that may not change, and the metric's data."""
    return rules.trusted_files() | _metric_files(config)


def check_since_start(storage: Storage) -> dict[str, str]:
    """The trusted state now, compared with that of the research's start. Raises UserError when it has changed.

    A research without results takes it down anew.
    """
    now = trusted_state(storage.config)
    path = storage.home / _STATE
    if storage.ledger.records() and path.exists():
        check_same(json.loads(path.read_text(encoding="utf-8")), now)
    else:
        write_atomically(path, json.dumps(now, indent=2) + "\n")
    return now


def check_same(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Raise UserError when two trusted states differ."""
    names = differing(before, after)
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise UserError(
            f"what results depend on has changed since the start ({names[0]}{more}): they would not be comparable; "
            "restore it and resume, or start a new research"
        )


def surroundings(storage: Storage) -> dict[str, str]:
    """What must not change while untrusted code runs. Under Landlock only that which we alone write to.

    Without Landlock the user's checkout belongs to it; working there meanwhile then costs an experiment.
    """
    state = {f"installed {name}": value for name, value in rules.trusted_files().items()}
    state |= _metric_files(storage.config)
    for name in (CONFIG, LEDGER):
        path = storage.home / name
        state[name] = path.read_bytes().hex() if path.exists() else ""
    if not landlock.version():
        state |= rules.checkout_state(storage.repository, storage.config.tag)
    return state


def _metric_files(config: ResearchConfig) -> dict[str, str]:
    data = config.start.data
    return rules.metric_files(open_prepared(data.source, vocab_size=data.vocab_size, cache_dir=cache_dir()))
