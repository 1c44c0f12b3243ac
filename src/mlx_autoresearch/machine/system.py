"""Which operating system this is. The only place that asks: whatever differs on macOS is reached through here."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from functools import lru_cache


def name() -> str:
    """The system as Python names it: "linux", "darwin" (macOS) or another."""
    return sys.platform


def is_macos() -> bool:
    """Whether this is macOS."""
    return name() == "darwin"


def is_linux() -> bool:
    """Whether this is Linux."""
    return name() == "linux"


def processor() -> str:
    """The instruction set as the system names it: "x86_64", on Linux "aarch64" and on macOS "arm64" for 64-bit Arm."""
    return platform.machine()


@lru_cache
def macos_version() -> tuple[int, int] | None:
    """Major and minor version of macOS, as (26, 2); None elsewhere.

    From `sw_vers`, since a Python that was built for an older macOS may be told 16.0 for 26.0 (python/cpython#135675).
    """
    if not is_macos():
        return None
    said = _sw_vers("-productVersion") or platform.mac_ver()[0]
    found = re.match(r"(\d+)(?:\.(\d+))?", said.strip())
    return (int(found[1]), int(found[2] or 0)) if found else None


def version() -> str:
    """As "macOS 26.2" or "Linux 6.18.44": numbers alone, since whoever builds a kernel can name it after anything."""
    if macos := macos_version():
        return f"macOS {macos[0]}.{macos[1]}"
    number = re.match(r"[\d.]*\d", platform.release())
    return f"{platform.system()} {number[0] if number else ''}".strip()


@lru_cache
def macos_build() -> str:
    """The build of macOS, as "24F74", which changes with its Metal compiler; empty where it is not told."""
    return _sw_vers("-buildVersion") if is_macos() else ""


def _sw_vers(question: str) -> str:
    try:
        return subprocess.run(["sw_vers", question], capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def program(name: str) -> str | None:
    """The path of a program on PATH; None where there is none.

    On a Mac without the Command Line Tools, /usr/bin holds stand-ins of compilers and git, which open a window that
    offers to install them: they count as missing.
    """
    path = shutil.which(name)
    if path and path.startswith("/usr/bin/") and is_macos() and not _has_command_line_tools():
        return None
    return path


@lru_cache
def _has_command_line_tools() -> bool:
    try:
        return subprocess.run(["xcode-select", "-p"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False
