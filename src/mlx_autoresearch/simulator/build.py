"""Compiles kernels and the runtime into shared libraries, once: results are cached by the hash of all that goes in."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.machine import system
from mlx_autoresearch.machine.files import replacing, write_atomically
from mlx_autoresearch.machine.paths import cache_dir

from .compilers import Compiler

_ROOM = Path(__file__).parent
SHIM = _ROOM / "shim"
RUNTIME = _ROOM / "runtime"

_COMMON = [
    "-std=gnu++17", "-O2", "-g1", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing", "-fno-math-errno",
    "-fno-finite-loops",  # C++ may drop a loop that does nothing; a GPU hangs in it
    "-fsigned-char",  # as in Metal; on arm64 Linux it is unsigned
    "-Wall", "-Wdouble-promotion", "-Wno-unknown-pragmas", "-Wno-unused-variable", "-Wno-unused-function",
    "-Wno-unused-but-set-variable", "-Wno-attributes",
]  # fmt: skip
_CLANG = ["-cl-single-precision-constant", "-Wno-unused-const-variable", "-Wno-pass-failed"]
_GCC = ["-fsingle-precision-constant", "-Wno-maybe-uninitialized"]
# Every access calls a hook, at its own width; garbage in private variables is NaN.
_CHECKED = ["-DMSL_CHECKED", "-fsanitize=thread", "-ftrivial-auto-var-init=pattern"]
_VIOLATIONS = "shift-exponent,signed-integer-overflow,integer-divide-by-zero,alignment,null,object-size"
_CHECKED_CLANG = [
    f"-fsanitize=array-bounds,{_VIOLATIONS}", "-fsanitize-recover=all", "-fstrict-flex-arrays=3",
    "-fno-vectorize", "-fno-slp-vectorize", "-mllvm", "-tsan-instrument-read-before-write=1",
]  # fmt: skip
_CHECKED_GCC = [f"-fsanitize=bounds-strict,{_VIOLATIONS}", "-fno-tree-vectorize", "-fno-tree-slp-vectorize"]
_RUNTIME_FLAGS = ["-std=c++17", "-O3", "-g", "-fPIC", "-Wall", "-Wextra", "-Wshadow"]


@dataclass(frozen=True)
class Diagnostic:
    """What a compiler says about a line; `notes` are the lines that explain it, as file:line: message."""

    file: str
    line: int
    severity: str  # "error" or "warning"
    message: str
    option: str  # "-Wuninitialized", or nothing
    notes: str = ""

    def place_in(self, files: set[str]) -> tuple[str, int]:
        """Where it stands; of what a template of the shim says, the first line of these files that asked for it."""
        if self.file not in files:
            for file, line in re.findall(r"^([^\n:]+):(\d+): ", self.notes, re.M):
                if file in files:
                    return file, int(line)
        return Path(self.file).name, self.line


def cache_folder() -> Path:
    """Where compiled kernels are kept: in the user's cache folder."""
    return cache_dir() / "simulator"


def _place(*names: str) -> list[Path]:
    """Where these files are, or are to be made: in the cache, or where that cannot be written in a folder of our own.

    A confined process, which may run an experiment's kernels, can read what the cache holds but not add to it.
    """
    cache = cache_folder()
    there = all((cache / name).exists() for name in names)
    folder = cache if there or _is_writable(cache) else _own_folder()
    return [folder / name for name in names]


@lru_cache
def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # os.access does not know of a process's confinement
            return True
    except OSError:
        return False


@lru_cache
def _own_folder() -> Path:
    """A folder of this process, deleted when it ends. Nobody else can have put a library there."""
    folder = tempfile.TemporaryDirectory(prefix="mlx_autoresearch-simulator-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


@lru_cache
def _hash_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("[!.]*")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


@lru_cache
def _processor() -> str:
    """What -march=native depends on."""
    try:
        flags = re.search(r"^(?:flags|Features)\s*:.*$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        flags = None
    return system.processor() + (flags.group() if flags else "")


def kernel_flags(compiler: Compiler, checked: bool) -> list[str]:
    flags = _COMMON + (_CLANG if compiler.is_clang else _GCC)
    if compiler.is_clang and system.processor() in ("x86_64", "AMD64"):
        flags += ["-Xclang", "-ffloat16-excess-precision=none"]  # half rounds after every operation
    if checked:
        # A frame larger than the guard touches each page of it.
        clash = ["-fstack-clash-protection"] if system.is_linux() else []
        return flags + _CHECKED + (_CHECKED_CLANG if compiler.is_clang else _CHECKED_GCC) + clash
    native = {"x86_64": ["-march=native"], "aarch64": ["-mcpu=native"]}
    return flags + native.get(system.processor(), [])


def parse_diagnostics(text: str) -> list[Diagnostic]:
    found: list[Diagnostic] = []
    asked = ""  # g++ says before an error which lines asked for a template
    for line in text.split("\n"):
        if match := re.match(r"(.*?):(\d+):\d+:\s+(required from .*)", line):
            asked += f"\n{match[1]}:{match[2]}: {match[3]}"
            continue
        match = re.match(r"(.*?):(\d+):\d+: (fatal error|error|warning|note): (.*?)(?: \[(-W[^\]]*)\])?$", line)
        if match and match[3] != "note":
            severity = match[3].split()[-1]
            found.append(Diagnostic(match[1], int(match[2]), severity, match[4], match[5] or "", asked))
            asked = ""
        elif match and found:
            last = found[-1]
            note = f"{last.notes}\n{match[1]}:{match[2]}: {match[4]}"
            found[-1] = Diagnostic(**{**asdict(last), "notes": note})
    return found


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}  # diagnostics in English


def _key(*parts: str) -> str:
    """A name in the cache. Machines of other processors may share the folder, and their compilers the banner."""
    return hashlib.sha256("\0".join((system.processor(), *parts)).encode()).hexdigest()[:24]


# Threads that want the same library wait for the first of them to build it.
_building: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)


def _compile(command: list[str], source: str, target: Path, link: list[str]) -> str:
    """Compiles and links `source` into `target`, which appears complete or not at all. Returns the compiler's output;
    `target` is missing afterwards if it failed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        cpp, obj, library = (os.path.join(folder, name) for name in ("kernel.cpp", "kernel.o", target.name))
        Path(cpp).write_text(source, encoding="utf-8")
        done = subprocess.run(
            [*command, "-c", cpp, "-o", obj], capture_output=True, text=True, check=False, env=_environment()
        )
        if done.returncode == 0:
            # Without the sanitizers' flags: their libraries must not be linked, the runtime stands in for them.
            undefined = ["-undefined", "dynamic_lookup"] if system.is_macos() else []
            linked = subprocess.run(
                [command[0], "-shared", obj, "-o", library, *undefined, *link],
                capture_output=True, text=True, check=False, env=_environment(),
            )  # fmt: skip
            if linked.returncode:
                raise UserError(f"simulator: linking failed: {linked.stderr.strip().splitlines()[-1]}")
            if system.is_macos():  # there the lines stay in kernel.o, unless they are collected
                subprocess.run(["dsymutil", library], capture_output=True, check=False)
                shutil.rmtree(f"{target}.dSYM", ignore_errors=True)  # of a build that was cut short
                with suppress(OSError):  # there is none; or another process has just put its own there
                    os.replace(f"{library}.dSYM", f"{target}.dSYM")
            with replacing(target, durable=False) as new:
                os.replace(library, new)
        return done.stderr


def build_kernel(
    source: str, name: str, compiler: Compiler, checked: bool, folder: Path | None = None
) -> tuple[Path | None, list[Diagnostic]]:
    """The compiled kernel (None if the compiler rejects it) and what the compiler said.

    It is kept in the cache, or in `folder`.
    """
    flags = kernel_flags(compiler, checked)
    parts = [source, compiler.path, compiler.banner, *flags, _hash_folder(SHIM), (RUNTIME / "abi.h").read_text()]
    key = _key(*parts, "" if checked else _processor())
    names = f"{name}-{key}.so", f"{name}-{key}.json"
    target, said = [folder / file for file in names] if folder else _place(*names)
    with _building[target]:
        return _build_once(target, said, [compiler.path, *flags, f"-I{SHIM}"], source, compiler)


def _build_once(
    target: Path, said: Path, command: list[str], source: str, compiler: Compiler
) -> tuple[Path | None, list[Diagnostic]]:
    if target.exists() and said.exists():
        return target, [Diagnostic(**entry) for entry in json.loads(said.read_text())]
    output = _compile(command, source, target, ["-lm"])
    diagnostics = parse_diagnostics(output)
    if not target.exists():
        if not any(entry.severity == "error" for entry in diagnostics):  # about the command, not the kernel
            raise UserError(f"simulator: {compiler} failed: {' '.join(output.split())[:300]}")
        return None, diagnostics
    _save(said, diagnostics)
    return target, diagnostics


def machine_code(source: str, compiler: Compiler) -> bytes:
    """What the optimiser makes of a kernel without checks, as an object file without lines; empty if it is rejected.

    Two sources with the same code compute the same.
    """
    flags = [*kernel_flags(compiler, checked=False), "-g0", "-w", f"-I{SHIM}", "-x", "c++"]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "kernel.o"
        command = [compiler.path, *flags, "-c", "-", "-o", str(target)]
        subprocess.run(command, input=source, capture_output=True, text=True, check=False, env=_environment())
        return target.read_bytes() if target.exists() else b""


def build_runtime(compiler: Compiler, portable_fibers: bool = False) -> Path:
    """The runtime as a shared library. `portable_fibers` switches by ucontext where there is faster code."""
    flags = [*_RUNTIME_FLAGS, *(["-DSIM_USE_UCONTEXT"] if portable_fibers else [])]
    key = _key(_hash_folder(RUNTIME), compiler.path, compiler.banner, *flags)
    (target,) = _place(f"runtime-{key}.so")
    if not target.exists():
        command = [compiler.path, *flags, f"-I{RUNTIME}"]
        output = _compile(command, '#include "runtime.cpp"\n', target, ["-pthread", "-ldl"])
        if not target.exists():
            errors = [entry for entry in parse_diagnostics(output) if entry.severity == "error"]
            first = f"{errors[0].file}:{errors[0].line}: {errors[0].message}" if errors else " ".join(output.split())
            raise UserError(f"simulator: the runtime does not compile with {compiler}: {first[:300]}")
    return target


@lru_cache(maxsize=64)
def preprocess(source: str, compiler: Compiler) -> str:
    """The source with its headers in it and without macros. Raises UserError if clang refuses it."""
    return _front_end(source, compiler, ["-E"])


def syntax_tree(source: str, compiler: Compiler) -> str:
    """clang's syntax tree of a preprocessed source, in JSON. Raises UserError if clang refuses the source."""
    return _front_end(source, compiler, ["-fsyntax-only", "-Xclang", "-ast-dump=json"])


def _front_end(source: str, compiler: Compiler, flags: list[str]) -> str:
    command = [compiler.path, *kernel_flags(compiler, checked=False), "-w", *flags, f"-I{SHIM}", "-x", "c++", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode:
        errors = [entry for entry in parse_diagnostics(done.stderr) if entry.severity == "error"]
        first = f"{errors[0].file}:{errors[0].line}: {errors[0].message}" if errors else " ".join(done.stderr.split())
        raise UserError(f"simulator: {compiler} does not read the kernel: {first[:300]}")
    return done.stdout


def check_syntax(source: str, name: str, compiler: Compiler) -> list[Diagnostic]:
    """What clang says about a source for the static pass (lint.py), cached like a compiled kernel."""
    flags = ["-cl-std=clc++2021", "-cl-no-stdinc", "-Xclang", "-cl-ext=+all", "-fsigned-char", "-fsyntax-only", "-w"]
    flags += ["-ferror-limit=0", "-ftemplate-backtrace-limit=0"]
    key = _key(source, compiler.path, compiler.banner, *flags, _hash_folder(SHIM))
    (said,) = _place(f"{name}-lint-{key}.json")
    if said.exists():
        return [Diagnostic(**entry) for entry in json.loads(said.read_text())]
    command = [compiler.path, *flags, f"-I{SHIM}", "-x", "clcpp", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False, env=_environment())
    diagnostics = parse_diagnostics(done.stderr)
    if done.returncode and not any(entry.severity == "error" for entry in diagnostics):
        raise UserError(f"simulator: {compiler} failed: {' '.join(done.stderr.split())[:300]}")
    _save(said, diagnostics)
    return diagnostics


def _save(said: Path, diagnostics: list[Diagnostic]) -> None:
    """Writes `said`, which appears complete or not at all, whatever other threads and processes write there."""
    said.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(said, json.dumps([asdict(entry) for entry in diagnostics]), durable=False)
