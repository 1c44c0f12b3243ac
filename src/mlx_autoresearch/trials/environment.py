"""What the processes of a trial find: their environment, and kernels that MLX has compiled for the CPU before."""

from __future__ import annotations

import shutil
import struct
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from mlx_autoresearch.machine.paths import cache_dir
from mlx_autoresearch.sandbox.environment import clean_environment


def trial_environment(scratch: Path, *, confined: bool) -> dict[str, str]:
    """The environment variables of a trial's process, whose home is `scratch`.

    MLX keeps what it compiles below TMPDIR. A trusted process shares that folder with all others; a confined one gets
    copies in `scratch`: it could write to a shared or linked file, and so change what trusted processes compute.
    """
    temporary = Path(tempfile.gettempdir())
    if confined:
        kernels = Path("mlx", version("mlx"), "cpu")  # as MLX names it
        copy_kernels(temporary / kernels, scratch / kernels)
        temporary = scratch
    return clean_environment(scratch, temporary, MLX_AUTORESEARCH_CACHE=str(cache_dir().absolute()))


def copy_kernels(source: Path, target: Path) -> None:
    """Copy MLX's compiled kernels to the new folder `target`, but for those that are not complete.

    MLX compiles a kernel that it does not find, but fails at one that is cut short. That can be one which another
    process is linking right now, or one whose linker was killed.
    """
    target.mkdir(parents=True)
    for library in source.glob("lib*.so"):
        copy = target / library.name
        with suppress(FileNotFoundError):  # deleted since it was listed
            shutil.copyfile(library, copy)
            if not is_complete(copy):  # the copy, not the original, which may have grown in between
                copy.unlink()


def is_complete(library: Path) -> bool:
    """Whether an ELF library, 64-bit, is all there.

    The GNU linker writes the header after the code and the data, and then the section headers, where the file ends.
    Before that there is no header, or it points beyond the end. False for every other format.
    """
    with library.open("rb") as file:
        header = file.read(64)
        size = file.seek(0, 2)
    if len(header) < 64 or header[:5] != b"\x7fELF\x02":
        return False
    order = "<" if header[5] == 1 else ">"
    (sections_at,) = struct.unpack_from(f"{order}Q", header, 0x28)
    entry_size, entries = struct.unpack_from(f"{order}HH", header, 0x3A)
    return sections_at > 0 and entries > 0 and sections_at + entry_size * entries <= size
