"""What MLX has compiled at run time, kept in the user's cache: MLX's own place is a temporary folder.

On a CPU, MLX 0.32 makes a library of every fused loop, `lib<name>.so` in TMPDIR/mlx/<version>/cpu, and loads one that
it finds there. The name stands for the operations, their types and constants. On CUDA it makes a `.ptx` (code,
whatever its name), a `.txt` (names) and a `.cu` (the source), written in this order; MLX_PTX_CACHE_DIR says where. On
Metal the system itself keeps what it compiled.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from . import device, system
from .paths import cache_dir
from .versions import package_versions

PTX_FOLDER = "MLX_PTX_CACHE_DIR"  # the environment variable
_MOST = 1000  # libraries that are kept, of about 16 KiB each
_MOST_PTX = 1000
_NVRTC = ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvrtc-cu13")


@contextmanager
def kept() -> Iterator[None]:
    """Inside, MLX finds what it compiled on this machine before; what it compiles is kept for the next time.

    Only for trusted code: what is kept here runs in every later process. Where the cache cannot be read or written, or
    the compiler is not known, nothing is kept. For CUDA this process's environment is changed, for good: MLX asks once.
    """
    backend = device.kernel_backend()
    if backend == "cuda":
        _use_ptx_cache()
    if backend is not None:
        yield
        return
    restore_loops()
    try:
        yield
    finally:
        _keep_loops()


def loops_folder(temporary: Path | None = None) -> Path:
    """Where MLX looks for compiled loops when TMPDIR is `temporary`; by default this process's."""
    return (temporary or Path(tempfile.gettempdir())) / "mlx" / version("mlx") / "cpu"


def ptx_folder() -> Path | None:
    """The folder that MLX_PTX_CACHE_DIR names; None where it is not set."""
    folder = os.environ.get(PTX_FOLDER)
    return Path(folder) if folder else None


def restore_loops() -> None:
    """Put the loops of the cache where MLX looks for them. Whatever is there already stays."""
    source, target = _kept_loops(), loops_folder()
    if source is None or not source.is_dir():
        return
    with suppress(OSError):
        target.mkdir(parents=True, exist_ok=True)
        missing = set(_libraries(source)) - set(os.listdir(target))
        for name in missing:
            _copy(source / name, target / name)


def kept_files() -> list[Path]:
    """All that is kept, of every MLX and compiler."""
    return [path for path in (cache_dir() / "compiled").rglob("*") if path.is_file()]


def copy_loops(source: Path, target: Path) -> None:
    """Copy compiled loops to the new folder `target`, but for those that are not complete.

    MLX compiles a loop that it does not find, but fails at one that is cut short. That can be one which another process
    is linking right now, or one whose linker was killed.
    """
    target.mkdir(parents=True)
    for library in source.glob("lib*.so"):
        copy = target / library.name
        with suppress(FileNotFoundError):  # deleted since it was listed
            shutil.copyfile(library, copy)
            if not is_complete(copy):  # the copy, not the original, which may have grown in between
                copy.unlink()


def copy_ptx(target: Path) -> None:
    """Copy what MLX_PTX_CACHE_DIR holds, or would hold in a process with `kept`, to the new folder `target`."""
    source = ptx_folder() or _kept_ptx()
    target.mkdir(parents=True)
    if source is None:
        return
    for code in _ptx(source):
        copy = target / code.relative_to(source)
        with suppress(OSError):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(code.with_suffix(".txt"), copy.with_suffix(".txt"))
            shutil.copyfile(code, copy)


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


def loaded(folder: Path) -> set[str]:
    """The names of the libraries in `folder` that this process has loaded."""
    prefix, names = f"{folder.resolve()}/", set()
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        _, found, name = line.partition(prefix)
        if found and name.endswith(".so"):  # a deleted one ends with " (deleted)"
            names.add(name)
    return names


def compiler_changed() -> float:
    """When the compiler that MLX calls, g++, was put on this machine; seconds since 1970. Raises OSError."""
    path = system.program("g++")
    if path is None:
        raise FileNotFoundError("g++")
    return os.stat(path).st_ctime  # the time of its content is the packager's


@lru_cache
def compiler_version() -> str | None:
    """The first line of `g++ --version`; None where there is none."""
    if system.program("g++") is None:
        return None
    with suppress(OSError):
        said = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=False)
        if said.returncode == 0 and said.stdout:
            return said.stdout.splitlines()[0]
    return None


def _keep_loops() -> None:
    """Add the loops that this process has loaded to the cache, and drop those that were not used for longest."""
    source, target = loops_folder(), _kept_loops()
    with suppress(OSError):
        if target is None or not (used := loaded(source)):
            return
        since = compiler_changed()
        target.mkdir(parents=True, exist_ok=True)
        for name in used:
            if (target / name).exists():
                os.utime(target / name)
                continue
            with suppress(FileNotFoundError):
                found = (source / name).stat()
                if found.st_uid == os.getuid() and found.st_mtime >= since and is_complete(source / name):
                    _copy(source / name, target / name)
        oldest = sorted(_libraries(target), key=lambda name: (target / name).stat().st_mtime)
        for name in oldest[:-_MOST]:
            (target / name).unlink(missing_ok=True)


def _use_ptx_cache() -> None:
    """Have MLX keep what it compiles for CUDA in the user's cache, unless the user has said where."""
    if PTX_FOLDER in os.environ or (folder := _kept_ptx()) is None:
        return
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        whole = _ptx(folder)
        for code in set(folder.rglob("*.ptx")) - set(whole):  # MLX fails at them
            code.unlink(missing_ok=True)
        for code in sorted(whole, key=whole.__getitem__)[:-_MOST_PTX]:
            for suffix in (".ptx", ".txt", ".cu"):
                code.with_suffix(suffix).unlink(missing_ok=True)
        os.environ[PTX_FOLDER] = str(folder.absolute())


def _ptx(folder: Path) -> dict[Path, float]:
    """The compiled code in a folder of MLX's, but for what was not written to its end, and when it was last used."""
    whole = {}
    for source in folder.rglob("*.cu"):  # which is written last
        code, names = source.with_suffix(".ptx"), source.with_suffix(".txt")
        with suppress(OSError):
            before = code.stat()  # reading it counts as a use
            with code.open("rb") as file:
                elf = file.read(4) == b"\x7fELF"
            if names.stat().st_size and (is_complete(code) if elf else before.st_size):
                whole[code] = max(before.st_mtime, before.st_atime)
    return whole


def _kept_loops() -> Path | None:
    """The folder of loops that this MLX, this compiler and this CPU make; None where something is not known."""
    compiler = compiler_version()
    return None if compiler is None or not system.is_linux() else _folder("cpu", compiler, device.device_name())


def _kept_ptx() -> Path | None:
    nvrtc = sorted(package_versions(_NVRTC).items())
    return _folder("cuda", str(nvrtc), device.device_name())


def _folder(kind: str, *made_by: str) -> Path:
    key = hashlib.sha256("\n".join((system.processor(), *made_by)).encode()).hexdigest()[:16]
    return cache_dir() / "compiled" / f"mlx-{version('mlx')}-{kind}-{key}"


def _libraries(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith("lib") and name.endswith(".so")]


def _copy(source: Path, target: Path) -> None:
    """Copy a file so that another process finds all of it or nothing."""
    new = target.with_name(f".{os.getpid()}.{target.name}"[:255])
    try:
        shutil.copyfile(source, new)
        new.replace(target)
    except FileNotFoundError:  # deleted since it was listed
        pass
    finally:
        new.unlink(missing_ok=True)
