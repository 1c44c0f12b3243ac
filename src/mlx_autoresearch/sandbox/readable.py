"""What programs need to read: of the system, Python's installation, and the program's own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from glob import glob
from pathlib import Path

from mlx_autoresearch.machine import system

_LINUX = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/gnu/store"),
    *("/home/linuxbrew/.linuxbrew", "/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d"),
    *("/etc/localtime", "/etc/timezone", "/etc/locale.alias", "/etc/os-release", "/etc/passwd", "/etc/group"),
    *("/etc/nsswitch.conf", "/etc/gitconfig", "/etc/nvidia", "/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf"),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/version", "/proc/filesystems"),
    *("/proc/loadavg", "/proc/uptime", "/proc/devices", "/proc/modules", "/proc/sys", "/proc/driver/nvidia"),
    *("/sys/devices", "/sys/bus", "/sys/class", "/sys/module", "/sys/fs/cgroup", "/sys/kernel/mm"),
)
_LINUX_NETWORK = (
    *("/etc/resolv.conf", "/run/systemd/resolve", "/etc/hosts", "/etc/host.conf", "/etc/gai.conf", "/etc/services"),
    *("/etc/protocols", "/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/ca-certificates"),
    *("/etc/pki/tls/certs", "/etc/pki/tls/cert.pem", "/etc/pki/ca-trust"),
    *("/etc/crypto-policies", "/var/lib/ca-certificates", "/var/lib/ca-certificates-java"),
)
_MACOS = (
    *("/System", "/usr", "/bin", "/sbin", "/opt/homebrew", "/opt/local", "/nix/store"),
    *("/Library/Apple", "/Library/Developer", "/Library/Frameworks", "/Library/Preferences/Logging"),
    *("/private/var/db/dyld", "/private/var/db/timezone", "/private/var/select", "/private/var/db/xcode_select_link"),
    *("/private/etc/localtime", "/private/etc/passwd", "/private/etc/group", "/private/etc/gitconfig"),
    *("/Applications/Xcode.app", "/Applications/Xcode-beta.app"),
)
_MACOS_NETWORK = (
    *("/private/etc/resolv.conf", "/private/var/run/resolv.conf", "/private/etc/hosts", "/private/etc/services"),
    *("/private/etc/protocols", "/private/etc/ssl", "/Library/Keychains/System.keychain"),
)
_COMPILERS = ("g++", "gcc", "clang++", "clang", "as", "ld", "nvcc", "xcrun")
_CUDA = ("CUDA_HOME", "CUDA_PATH")  # environment variables
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_CS_DARWIN_USER_CACHE_DIR = 65538  # of macOS's confstr
_SHARED = ("bin", "sbin", "libexec")  # folders of programs; what else they need lies beside these


def system_files(*, network: bool) -> Iterator[str]:
    """What most programs read of the system. network: also what names and certificates are looked up in."""
    yield from _MACOS if system.is_macos() else _LINUX
    if network:
        yield from _MACOS_NETWORK if system.is_macos() else _LINUX_NETWORK
    yield from filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))
    yield from filter(None, (os.environ.get(name) for name in (*_CUDA, "DEVELOPER_DIR", "SDKROOT")))
    for name in _COMPILERS:
        if found := shutil.which(name):
            yield from program_files(found)
    if system.is_macos():  # where Metal keeps what it compiled
        with suppress(OSError):
            yield from glob(os.path.join(os.confstr(_CS_DARWIN_USER_CACHE_DIR) or "/", "com.apple.metal*"))


def python_files() -> Iterator[str]:
    """This interpreter, all that it imports from, and this package with its kernels."""
    yield from (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, os.path.realpath(sys.executable))
    yield from _imports_from(os.environ.get("PYTHONPATH"))
    package = Path(__file__).parents[1]
    yield from map(str, (package, package.parents[1] / "custom_kernels"))
    if (mlx := importlib.util.find_spec("mlx")) is not None:
        yield from mlx.submodule_search_locations or ()


@lru_cache
def _imports_from(_: str | None) -> list[str]:
    """Where a new interpreter that is started with -P looks for modules: this one has the folder of its script, too."""
    ask = [sys.executable, "-P", "-c", "import sys; print('\\0'.join(sys.path))"]
    said = subprocess.run(ask, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout
    return [entry for entry in os.fsdecode(said).rstrip("\n").split("\0") if entry]


def program_files(program: str, *, levels: int = 4) -> Iterator[str]:
    """A program's file, the links to it, its interpreter, and the folders that its installation consists of.

    They follow from where the program lies: the package of npm's or pip's that it belongs to, or the folder above its
    `bin`. A home folder is none: of a program in ~/bin the file alone is taken. Raises nothing: what cannot be read is
    left out. levels: of interpreters that are scripts themselves; the kernel follows as many.
    """
    home = os.path.realpath(os.path.expanduser("~"))
    seen = set()
    while program not in seen:
        seen.add(program)
        yield program
        yield from _installation(Path(program), home)
        if os.path.islink(program):
            program = os.path.join(os.path.dirname(program), os.readlink(program))
    try:
        with open(program, "rb") as file:
            first = file.readline(4096)
    except OSError:
        return
    if first.startswith(b"#!") and levels:
        words = os.fsdecode(first[2:]).split()
        if words and os.path.basename(words[0]) == "env":
            words = [found for word in words[1:] if not word.startswith("-") and (found := shutil.which(word))]
        if words and os.path.isfile(words[0]) and words[0] != program:
            yield from program_files(words[0], levels=levels - 1)


def _installation(program: Path, home: str) -> Iterator[str]:
    parts = program.parts
    for name in ("node_modules", "site-packages"):
        if name in parts:
            yield str(Path(*parts[: parts.index(name) + 1]))
    if program.parent.name in _SHARED:
        root = os.path.realpath(program.parent.parent)
        # ~/.local holds what programs keep of a user, beside what they are made of; a checkout is no installation
        if root not in ("/", home, os.path.join(home, ".local")) and not os.path.exists(os.path.join(root, ".git")):
            yield root


def private_places() -> list[str]:
    """Folders of the user who runs this: home, the folder it was started in, and the checkout of this package.

    Where something that programs read lies around one of these, or is one, its other files stay closed.
    """
    checkout = Path(__file__).parents[3]
    return [os.path.expanduser("~"), os.getcwd(), *([str(checkout)] if (checkout / ".git").exists() else [])]


def devices(*, gpu: bool) -> list[str]:
    """Files of /dev that programs need. gpu: NVIDIA's, too."""
    return [*_DEVICES, *(sorted([*glob("/dev/nvidia*"), *glob("/dev/dxg")]) if gpu else ())]
