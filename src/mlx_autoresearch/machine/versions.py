"""Versions of what decides a result: Python, this package, the packages it stands on, and the code's git commit."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mlx_autoresearch.errors import UserError

from .git import git

PACKAGES = ("mlx_autoresearch", "mlx", "mkl", "numpy", "tokenizers", "datasets")


def installed(package: str) -> str | None:
    """The version of an installed package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def package_versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Versions of packages, as far as they are installed."""
    return {package: found for package in packages if (found := installed(package))}


def python_version() -> str:
    """Python's version, as in "3.11.7"."""
    return platform.python_version()


def git_commit() -> str | None:
    """HEAD of the checkout that this package runs from, and "+changes" when the package's files differ from it.

    None where git does not know: the package is installed, the checkout has no commit, or there is no git.
    """
    package = Path(__file__).resolve().parents[1]
    with suppress(UserError):
        git(["ls-files", "--error-unmatch", "machine/versions.py"], package)
        commit = git(["rev-parse", "HEAD"], package).strip()
        return commit + ("+changes" if git(["status", "--porcelain", "--", str(package)], package) else "")
    return None
