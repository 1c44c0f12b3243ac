"""Puts a worktree's recipe in the place of the installed one, inside an untrusted process."""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path

PACKAGE, RECIPE, KERNELS = "mlx_autoresearch", "recipe", "custom_kernels"


def install(code: Path) -> None:
    """Import the recipe from `code`, a snapshot of the repository's editable files, and load its Metal kernels.

    All else comes from the installation. Raises RuntimeError when the recipe has been imported already.
    """
    if f"{PACKAGE}.{RECIPE}" in sys.modules:
        raise RuntimeError(f"{PACKAGE}.{RECIPE} was imported before the overlay")
    from mlx_autoresearch.kernels.registry import use_folder

    use_folder(code / KERNELS)
    sys.meta_path.insert(0, _Finder(code / "src"))


class _Finder(MetaPathFinder):
    def __init__(self, root: Path):
        self._root = root

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        top, _, rest = fullname.partition(".")
        if top != PACKAGE or rest.split(".")[0] != RECIPE:
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
