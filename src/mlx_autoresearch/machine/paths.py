"""Where things that outlive a run are kept."""

from __future__ import annotations

import os
from pathlib import Path

from mlx_autoresearch.errors import UserError


def cache_dir() -> Path:
    """Folder of prepared data and of what was measured on this machine; it need not exist.

    The environment variable MLX_AUTORESEARCH_CACHE, else `mlx_autoresearch` in XDG_CACHE_HOME, else in `~/.cache`.
    Raises UserError where that needs a home directory and there is none.
    """
    own = os.environ.get("MLX_AUTORESEARCH_CACHE")
    try:
        if own:
            return Path(own).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mlx_autoresearch"
    except RuntimeError:  # no such user, or one without a home
        raise UserError("there is no home directory: set MLX_AUTORESEARCH_CACHE to the full path of a folder") from None
