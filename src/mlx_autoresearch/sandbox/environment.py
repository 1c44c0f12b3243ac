"""What an untrusted command gets of this process's environment: nothing secret."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlx_autoresearch.machine.removal import remove

# Nothing in here is a secret; a machine's credentials live in other variables.
_INHERITED = (
    *("PATH", "LANG", "LANGUAGE", "TZ", "TERM", "USER", "LOGNAME", "SHELL", "PYTHONPATH", "LD_LIBRARY_PATH"),
    *("DEVELOPER_DIR", "SDKROOT"),  # which of several compilers a Mac uses
    *("NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_TF32_OVERRIDE"),  # NVIDIA_API_KEY is a secret
)
_PREFIXES = ("LC_", "MKL_", "OMP_", "OPENBLAS_", "KMP_", "MLX_", "METAL_", "CUDA_", "NCCL_", "AGX_", "MTL_")


def clean_environment(home: Path, temporary: Path, **more: str) -> dict[str, str]:
    """This process's environment, reduced to what a computation needs; HOME and TMPDIR are the folders given."""
    kept = {k: v for k, v in os.environ.items() if k in _INHERITED or k.startswith(_PREFIXES)}
    if "PYTHONPATH" in kept:  # the command may run in another folder
        kept["PYTHONPATH"] = os.pathsep.join(os.path.abspath(p) for p in kept["PYTHONPATH"].split(os.pathsep) if p)
    return kept | {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"} | more


@contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """A new folder beneath `parent`, for HOME or TMPDIR of a command; it is deleted with all that is in it."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(prefix=f"{name}-", dir=parent)
    try:
        yield Path(folder)
    finally:
        # Not tempfile.TemporaryDirectory: before Python 3.11.8 it changes the mode of what a planted link points to.
        with suppress(OSError):
            remove(Path(folder))
