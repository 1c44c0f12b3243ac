"""Our kernels by name."""

from __future__ import annotations

from pathlib import Path

from mlx_autoresearch.errors import UserError

from .description import KernelFile
from .source import load_kernel

_folder: Path | None = None


def use_folder(folder: Path | None) -> None:
    """Take our kernels from `folder` from now on, in this process; None: from the installation again.

    An experiment's kernels are not the installed ones. Raises UserError when the folder does not exist.
    """
    global _folder
    if folder is not None and not folder.is_dir():
        raise UserError(f"kernels: {folder} does not exist")
    _folder = folder


def kernel_folder() -> Path:
    """custom_kernels/: what `use_folder` was given, else inside the installed package or at a checkout's root."""
    if _folder is not None:
        return _folder
    package = Path(__file__).parents[1]
    for folder in (package / "custom_kernels", package.parents[1] / "custom_kernels"):
        if folder.is_dir():
            return folder
    raise UserError("kernels: custom_kernels/ was not found; reinstall mlx_autoresearch")


def kernel_names() -> list[str]:
    """Every kernel of ours: a .metal file with a .yaml beside it."""
    return sorted(path.stem for path in kernel_folder().glob("[!.]*.metal") if path.with_suffix(".yaml").exists())


def find_kernel(name: str) -> KernelFile:
    """One of our kernels by name, or any kernel by the path of its .metal or .yaml file; UserError if unknown."""
    path = Path(name)
    if path.suffix in (".metal", ".yaml"):
        return load_kernel(path)
    if name not in kernel_names():
        raise UserError(f"kernels: no kernel {name!r}; known are {', '.join(kernel_names())} (or give a .metal file)")
    return load_kernel(kernel_folder() / f"{name}.metal")
