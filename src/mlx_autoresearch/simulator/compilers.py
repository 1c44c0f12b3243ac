"""Which compiler builds the kernels, and what it cannot check."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from functools import lru_cache

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.machine import system

_OLDEST = {"clang": 17, "apple": 16}
_CANDIDATES = [
    "clang++",
    *(f"clang++-{version}" for version in range(25, 16, -1)),
    "g++",
    *(f"g++-{version}" for version in range(16, 11, -1)),
]


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler on this machine: where it is, and what its --version says."""

    path: str
    family: str  # "clang", "apple" (also clang) or "gcc"
    version: int
    banner: str  # the first line of --version: part of every cache key

    @property
    def name(self) -> str:
        """Whose it is, in words."""
        return {"apple": "Apple clang"}.get(self.family, self.family)

    @property
    def is_clang(self) -> bool:
        """Whether it is LLVM's clang or Apple's, which know address spaces."""
        return self.family != "gcc"

    @property
    def unchecked(self) -> tuple[str, ...]:
        """What this compiler cannot find, in words; empty with clang."""
        if self.is_clang:
            return ()
        return (
            "address spaces (pointers into the wrong one, inputs of fewer than 8 elements in constant memory)",
            "several barriers or simdgroup operations on one line (such a line is refused)",
        )

    def __str__(self) -> str:
        return f"{self.path} {self.version}"


def _oldest_gcc() -> int:
    """The oldest g++ with `half`, which is C++'s _Float16: on arm64 it came a version later than on x86-64."""
    return 12 if system.processor() in ("x86_64", "AMD64") else 13


@lru_cache
def _identify(path: str) -> Compiler | None:
    try:
        banner = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        return None
    number = re.search(r"(\d+)\.\d+", banner)
    if not number:
        return None
    family = "apple" if "Apple" in banner else "clang" if "clang" in banner else "gcc"
    return Compiler(path, family, int(number.group(1)), banner)


def find_compiler(path: str | None = None) -> Compiler:
    """The compiler at `path`, or the best one there is: clang++ 17 or newer, otherwise g++ 12 (on arm64: 13) or newer.

    Raises UserError if there is none, saying what to install.
    """
    oldest = {**_OLDEST, "gcc": _oldest_gcc()}
    names = [path] if path else _CANDIDATES
    found = [compiler for name in names if system.program(name) and (compiler := _identify(name))]
    usable = [compiler for compiler in found if compiler.version >= oldest[compiler.family]]
    for compiler in sorted(usable, key=lambda compiler: not compiler.is_clang):
        return compiler
    if path:
        raise UserError(f"simulator: {path} is not a compiler it can use: clang++ 17 or g++ {oldest['gcc']}, or newer")
    too_old = "".join(f"{compiler.path} is {compiler.name} {compiler.version}, too old; " for compiler in found[:1])
    if not system.is_macos():
        install = (
            f"install clang 17 or newer (Debian, Ubuntu: apt-get install clang-19) or g++ {oldest['gcc']} or newer"
        )
    elif found:
        install = (
            "update the Command Line Tools to 16 or newer (System Settings > General > Software Update, or "
            "`softwareupdate --list`; where it offers none, download them at developer.apple.com/download/all)"
        )
    else:
        install = "install the Command Line Tools (`xcode-select --install`)"
    raise UserError(f"simulator: {too_old or 'no C++ compiler found: '}{install}")
