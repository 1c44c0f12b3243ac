"""What makes a Mac slow, or its installation fail, as far as it can be seen from within Python."""

from __future__ import annotations

import os
import re
import stat
import sysconfig
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from . import system

OLDEST = (14, 0)  # macOS, for MLX's wheels
_NEURAL = (26, 2)  # macOS from which MLX's wheel for macOS 26 uses an M5's neural accelerators


def wheel_macos() -> int | None:
    """The macOS for which the installed wheel of MLX's Metal backend was built, as 15; None where it does not say."""
    try:
        text = distribution("mlx-metal").read_text("WHEEL") or ""
    except PackageNotFoundError:
        return None
    found = re.search(r"^Tag: .*-macosx_(\d+)_", text, re.M)
    return int(found[1]) if found else None


def warnings(device_name: str) -> Iterator[str]:
    """Each problem of this Mac with its remedy, in one line; none elsewhere. device_name: the GPU's, as "Apple M5"."""
    macos = system.macos_version()
    if macos is None:
        return
    if macos < OLDEST:
        yield f"macOS {macos[0]}.{macos[1]} is too old for MLX's wheels: update to macOS 14 or newer"
    wheel = wheel_macos()
    if device_name.startswith("Apple M5") and macos >= _NEURAL and wheel is not None and wheel < 26:
        yield (
            f"MLX's wheel for macOS {wheel} does not use this chip's neural accelerators (bfloat16 products about 2.7 "
            "times slower, ml-explore/mlx#3821): this Python was built for an older macOS; delete .venv and call make "
            "with a newer one, as of uv or python.org"
        )
    if (26, 0) <= macos < _NEURAL and wheel is not None and wheel >= 26:
        running = f"{macos[0]}.{macos[1]}"
        yield f"MLX's wheel for macOS 26 has faults on {running} (ml-explore/mlx#4525): update to macOS 26.2"
    if hidden := hidden_links(Path(sysconfig.get_path("purelib"))):
        yield (
            f"macOS hides {hidden[0].name}, by which Python finds this package: run `chflags -R nohidden .venv`, and "
            "keep the checkout out of folders that iCloud keeps in step (Desktop, Documents)"
        )


def hidden_links(site_packages: Path) -> list[Path]:
    """The .pth files that carry macOS's flag `hidden`: Python's site module skips them (python/cpython#148121)."""
    return [path for path in sorted(site_packages.glob("*.pth")) if _flags(path) & stat.UF_HIDDEN]


def _flags(path: Path) -> int:
    return getattr(os.stat(path), "st_flags", 0)  # which Linux does not have
