"""Where things that outlive a run are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Folder of prepared data and of what was measured on this machine; it need not exist.

    The environment variable MLX_AUTORESEARCH_CACHE, else `mlx_autoresearch` in XDG_CACHE_HOME, else in `~/.cache`.
    """
    if own := os.environ.get("MLX_AUTORESEARCH_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mlx_autoresearch"
