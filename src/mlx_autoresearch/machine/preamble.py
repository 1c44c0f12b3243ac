"""Makes MLX's compilations for the CPU short: the header that all of them include, compiled once for GCC.

MLX 0.32 writes a loop to `<name>.cpp` in its folder (machine/compiled.py) and runs `g++ -std=c++17 -O3 -Wall -fPIC
-shared -I <MLX's headers>`. Most of the time goes into the header. GCC looks for the header beside the source first,
and there it takes a precompiled one, with the suffix .gch, if the compiler and its options are the same; else it goes
on as if there were none. The machine code is the same, byte for byte.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import mlx.core as mx

from . import system
from .compiled import compiler_changed, compiler_version
from .files import sync

_HEADER = Path("mlx", "backend", "cpu", "compiled_preamble.h")
_GCH = _HEADER.with_name(f"{_HEADER.name}.gch")
_COMMAND = ("g++", "-std=c++17", "-O3", "-Wall", "-fPIC")  # MLX's; with other options GCC would not take the result
_POLL_SECONDS = 0.02


def precompile(loops: Path, given_up: Callable[[], bool] = lambda: False) -> bool:
    """Put the precompiled header into MLX's folder of loops; whether it is there. Takes about a second, once.

    given_up: asked now and then; True ends it. False too where that cannot be done: no GCC, or no headers beside MLX.
    """
    include = _headers()
    if include is None:
        return False
    with suppress(OSError):
        if is_precompiled(loops):
            return True
        loops.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".precompiling-", dir=loops) as folder:
            header, check = Path(folder, _GCH), Path(folder, "check.cpp")
            header.parent.mkdir(parents=True)
            check.write_text(f'#include "{_HEADER.as_posix()}"\n')
            command = [*_COMMAND, "-I", str(include)]
            if not (
                _run([*command, "-x", "c++-header", str(include / _HEADER), "-o", str(header)], given_up)
                # Where the system moves memory about, a GCC before 13 may make a header that it cannot read.
                and _run([*command, "-Werror=invalid-pch", "-S", str(check), "-o", os.devnull], given_up)
            ):
                return False
            target = loops / _GCH
            target.parent.mkdir(parents=True, exist_ok=True)
            sync(header)  # GCC ends with an error at one that is cut short
            header.replace(target)
            return True
    return False


def is_precompiled(loops: Path) -> bool:
    """Whether MLX's folder of loops holds a precompiled header of the compiler and the headers that are here now."""
    include = _headers()
    try:
        return include is not None and (loops / _GCH).stat().st_mtime >= max(
            compiler_changed(), (include / _HEADER).stat().st_ctime
        )
    except OSError:
        return False


def header(loops: Path) -> Path:
    """The precompiled header in a folder of loops; it need not be there."""
    return loops / _GCH


def share(loops: Path, other: Path) -> None:
    """Let another folder of loops use the header of `loops`, through a link: it is 50 MB."""
    link = other / _GCH
    with suppress(OSError):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((loops / _GCH).absolute())


def _headers() -> Path | None:
    """The folder of MLX's headers, where the compiler is one that takes precompiled headers unasked: GCC, not clang."""
    include = Path(mx.__file__).parent / "include"
    compiler = compiler_version()
    usable = compiler is not None and "clang" not in compiler.lower() and system.is_linux()
    return include if usable and (include / _HEADER).is_file() else None


def _run(command: list[str], given_up: Callable[[], bool]) -> bool:
    """Whether a command ended well."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True) as process:
        while process.poll() is None:
            if given_up():
                os.killpg(process.pid, signal.SIGKILL)  # the compiler proper is a child of g++
                break
            with suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_SECONDS)
    return process.returncode == 0
