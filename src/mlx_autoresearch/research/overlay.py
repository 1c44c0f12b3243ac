"""Puts a worktree's editable modules in the place of the installed ones, inside an untrusted process."""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path

PACKAGE = "mlx_autoresearch"
MODULES = ("model", "attention", "optimizer", "schedule", "embedding", "norm", "rotary", "loss", "fastmath")
SUBPACKAGE = "kernels"


def install(code: Path) -> None:
    """Import `MODULES` and everything in `SUBPACKAGE` from `code`, a snapshot of the repository's editable files.

    All else comes from the installation. Raises RuntimeError when one of them has been imported already.
    """
    names = {f"{PACKAGE}.{name}" for name in (*MODULES, SUBPACKAGE)}
    if early := sorted(names & sys.modules.keys()):
        raise RuntimeError(f"{', '.join(early)} was imported before the overlay")
    sys.meta_path.insert(0, _Finder(code / "src"))


class _Finder(MetaPathFinder):
    def __init__(self, root: Path):
        self._root = root

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        top, _, rest = fullname.partition(".")
        if top != PACKAGE or not (rest in MODULES or rest.split(".")[0] == SUBPACKAGE):
            return None
        place = self._root / PACKAGE / Path(*rest.split("."))
        if place.is_dir():
            place = place / "__init__.py"
            return spec_from_file_location(
                fullname, place, loader=_Source(fullname, str(place)), submodule_search_locations=[str(place.parent)]
            )
        place = place.with_suffix(".py")
        return spec_from_file_location(fullname, place, loader=_Source(fullname, str(place)))


class _Source(SourceFileLoader):
    """Compiles the source every time: a planted .pyc is never read."""

    def get_code(self, fullname: str) -> types.CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)  # type: ignore[return-value]
