"""Importing the package is cheap, and its public names are there when asked for."""

import pkgutil
import subprocess
import sys

import pytest

import mlx_autoresearch


def test_import_loads_neither_mlx_nor_anything_heavy():
    code = "import sys, mlx_autoresearch; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "mlx_autoresearch.machine.blas" in loaded
    heavy = {"mlx.core", "numpy", "pydantic", "typer", "rich", "yaml", "tokenizers", "datasets", "pyarrow"}
    assert heavy.isdisjoint(loaded)


@pytest.mark.parametrize("name", sorted(mlx_autoresearch._EXPORTS))
def test_public_names_resolve(name: str):
    assert getattr(mlx_autoresearch, name).__module__.startswith("mlx_autoresearch")
    assert name in dir(mlx_autoresearch)


def test_no_public_name_is_a_submodules():
    submodules = {module.name for module in pkgutil.iter_modules(mlx_autoresearch.__path__)}
    assert submodules.isdisjoint(mlx_autoresearch._EXPORTS)


def test_unknown_names_raise():
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        getattr(mlx_autoresearch, "nothing_of_that_name")  # noqa: B009
