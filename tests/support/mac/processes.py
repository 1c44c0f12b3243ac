"""Processes as macOS shows them: environments of Apple's programs are hidden, and libproc tells of memory."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

_SOURCE = Path(__file__).with_name("libproc.cpp")
_APPLES = ("/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/")


@lru_cache
def load_libproc() -> None:
    """Make `proc_pid_rusage` visible in this process, as libSystem does."""
    ctypes.CDLL(str(_build()), mode=ctypes.RTLD_GLOBAL)


def _build() -> Path:
    """The library, built once on this machine."""
    name = f"simulated-libproc-{os.getuid()}-{hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:12]}.so"
    library = Path(tempfile.gettempdir(), name)
    if not library.exists():
        with tempfile.TemporaryDirectory() as folder:
            new = Path(folder, name)
            subprocess.run(["g++", "-shared", "-fPIC", str(_SOURCE), "-o", str(new)], check=True)
            new.rename(library)
    return library


def hide_environments(psutil: Any) -> Any:
    """`psutil.Process.environ` of macOS."""
    of_linux = psutil.Process.environ

    def environ(process: Any) -> dict[str, str]:
        program = process.exe()
        if program.startswith(_APPLES) and not Path(program).name.startswith("python"):
            raise psutil.AccessDenied(process.pid)
        return of_linux(process)

    return environ
