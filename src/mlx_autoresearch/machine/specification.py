"""What may be published of this machine: chip, cores, memory, system, versions; no user, no host, no path."""

from __future__ import annotations

import getpass
import os
import re
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import blas, device, mac, system
from .versions import package_versions, python_version

_PATH = re.compile(r"[^\s:;,='\"()<>]*/[^\s:;,'\"()<>]*")  # any word with a slash: units fall victim too


def specification() -> dict[str, Any]:
    """Facts that JSON can hold; sizes in bytes. An entry that this machine does not tell is None."""
    memory = device.memory_limits()
    return {
        "chip": device.device_name(),
        "backend": device.kernel_backend() or "cpu",
        "cpu_cores": cpu_cores(),
        "gpu_cores": gpu_cores(),
        "memory": memory.total,
        "recommended_memory": memory.recommended,
        "system": system.version(),
        "instruction_set": system.processor(),
        "blas": blas.name(),
        "mlx_wheel_macos": mac.wheel_macos(),
        "python": python_version(),
        "packages": package_versions(),
    }


def cpu_cores() -> int | None:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return blas.cpu_quota() or len(os.sched_getaffinity(0))
    return os.cpu_count()


def gpu_cores() -> int | None:
    """Cores of an Apple GPU, which the chip's name does not give; None elsewhere, and where macOS does not say."""
    if not system.is_macos():
        return None
    try:
        command = ["ioreg", "-r", "-d", "1", "-c", "AGXAccelerator"]
        said = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False).stdout
    except OSError:
        return None
    found = re.search(r'"gpu-core-count" = (\d+)', said)
    return int(found[1]) if found else None


def without_names(text: str) -> str:
    """A message with every path shown as <path>, and the names of this user and host as <name>."""
    text = _PATH.sub("<path>", text)
    for name in sorted(_names(), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "<name>", text)
    return text


def _names() -> set[str]:
    names = {socket.gethostname(), socket.gethostname().partition(".")[0], Path.home().name}
    with suppress(OSError, KeyError):  # a user without a name
        names.add(getpass.getuser())
    return {name for name in names if name}
