"""Builds the simulator for arm64 on another machine: for macOS, where it is only linked, and for Linux, where it runs.

python scripts/cross_compile.py macos    needs zig, which brings macOS's headers: pip install ziglang
python scripts/cross_compile.py linux    needs clang++ and: apt install qemu-user g++-aarch64-linux-gnu

simulator/build.py builds both, with the flags of that system and -Werror. Exit code 1: something does not compile, or
a kernel gives the wrong result. Exit code 2: a tool is missing; one line says which.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels.registry import find_kernel, kernel_names
from mlx_autoresearch.machine import system
from mlx_autoresearch.simulator import Kernel, find_compiler
from mlx_autoresearch.simulator.build import RUNTIME, build_kernel, build_runtime
from mlx_autoresearch.simulator.compilers import Compiler
from mlx_autoresearch.simulator.signature import SMALL, Input, make_signature
from mlx_autoresearch.simulator.translation import runnable_source

LAUNCHER = Path(__file__).with_suffix(".cpp")
# What each kernel must give, checked and unchecked: a finding, or the output. The faults end in the signal handler.
BODIES = {
    "exchange": """
        threadgroup float t[256];
        t[i] = simd_sum(x[i]);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        y[i] = t[255 - i];""",
    "registers": """
        float v[12];
        uint n[12];
        for (uint k = 0; k < 12; k++) v[k] = x[(i + k) % 256], n[k] = uint(x[(i + 20 * k) % 256]);
        threadgroup_barrier(mem_flags::mem_none);
        y[i] = 0;
        for (uint k = 0; k < 12; k++) y[i] += v[k] * float(n[k]);""",
    "race": """
        threadgroup float t[256];
        t[i] = x[i];
        threadgroup_barrier(mem_flags::mem_threadgroup);
        y[i] = t[255 - i];
        t[i] = 0;""",
    "deep": "float t[80000]; for (uint k = 0; k < 80000; k++) t[k] = x[k % 256]; y[i] = t[uint(x[i]) * 300];",
    "endless": "while (x[0] == 0) {} y[i] = 0;",
}
SUMS = [sum(range(32 * n, 32 * n + 32)) for n in reversed(range(8)) for _ in range(32)]
PRODUCTS = [sum((i + k) % 256 * ((i + 20 * k) % 256) for k in range(12)) for i in range(256)]
EXPECTED = {
    ("exchange", True): " ".join(map(str, SUMS)),
    ("exchange", False): " ".join(map(str, SUMS)),
    ("registers", True): " ".join(map(str, PRODUCTS)),
    ("registers", False): " ".join(map(str, PRODUCTS)),
    ("race", True): "threadgroup-race",
    ("deep", True): "stack-overflow",
    ("deep", False): "stack-overflow",
    ("endless", True): "timeout",
    ("endless", False): "timeout",
}


class Missing(Exception):
    """A tool that this machine lacks, and how to get it."""


@contextmanager
def cross(name: str, processor: str, command: list[str], folder: Path) -> Iterator[Compiler]:
    """Inside, the simulator builds for another system, in a cache of its own, with `command` as its compiler."""
    path = folder / "clang++"
    # Warnings are errors; the emulator's processor is not this machine's.
    path.write_text(f"""#!/bin/sh
for word in "$@"; do
    shift
    case $word in -mcpu=native) ;; -c) set -- "$@" -Werror -c ;; *) set -- "$@" "$word" ;; esac
done
exec {shlex.join(command)} "$@"
""")
    path.chmod(0o755)
    (folder / "dsymutil").symlink_to(shutil.which("true") or "")  # Apple's
    family = "apple" if name == "darwin" else "clang"
    environment = {
        "MLX_AUTORESEARCH_CACHE": str(folder / "cache"),
        "ZIG_LOCAL_CACHE_DIR": str(folder / "zig"),
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
    }
    with (
        patch.dict(os.environ, environment),
        patch.object(system, "name", lambda: name),
        patch.object(system, "processor", lambda: processor),
    ):
        yield Compiler(str(path), family, 17, shlex.join(command))


def build(compiler: Compiler, kernel: Kernel, source: str, checked: bool) -> Path:
    library, said = build_kernel(source, kernel.name, compiler, checked)
    if library is None:
        raise UserError(f"{kernel.name} does not compile: {said[0].file}:{said[0].line}: {said[0].message}")
    return library


def macos(folder: Path) -> None:
    """The runtime and every kernel of custom_kernels/ as libraries for macOS 14 on arm64."""
    if path := shutil.which("zig"):
        zig = [path]
    elif importlib.util.find_spec("ziglang"):
        zig = [sys.executable, "-m", "ziglang"]
    else:
        raise Missing("zig is missing: pip install ziglang")
    with cross("darwin", "arm64", [*zig, "c++", "-target", "aarch64-macos.14.0"], folder) as compiler:
        for portable in (False, True):
            build_runtime(compiler, portable)
        print("macOS arm64: the runtime compiles and links")
        for name in kernel_names():
            file = find_kernel(name)
            call = file.call(file.resolve(file.description.cases[0]), 0)
            inputs = [Input(dtype, array.ndim, array.size < SMALL) for dtype, array in call.inputs.values()]
            signature = make_signature(file.kernel, inputs, call.output_dtypes, call.template)
            for checked in (True, False):
                build(compiler, file.kernel, runnable_source(file.kernel, signature), checked)
        print(f"macOS arm64: {len(kernel_names())} kernels compile and link; nothing was run")


def linux(folder: Path) -> None:
    """Kernels on arm64 Linux, emulated, with each of the two ways to switch fibers."""
    gcc, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
    if not gcc or not emulator:
        wanted = "aarch64-linux-gnu-g++" if not gcc else "qemu-aarch64"
        raise Missing(f"{wanted} is missing: apt install qemu-user g++-aarch64-linux-gnu")
    host = find_compiler()
    if not host.is_clang:
        raise Missing("clang++ 17 or newer is missing: apt install clang-19")
    libc = subprocess.run([gcc, "-print-file-name=libc.so.6"], capture_output=True, text=True, check=True).stdout
    sysroot = Path(libc.strip()).resolve().parents[1]
    command = [shutil.which(host.path) or host.path, "--target=aarch64-linux-gnu"]
    with cross("linux", "aarch64", command, folder) as compiler:
        launcher = folder / "launcher"
        subprocess.run([compiler.path, f"-I{RUNTIME}", "-c", LAUNCHER, "-o", f"{launcher}.o"], check=True)
        subprocess.run([compiler.path, f"{launcher}.o", "-o", launcher], check=True)
        for portable, switch in ((False, "assembly"), (True, "ucontext")):
            runtime = build_runtime(compiler, portable)
            for (name, checked), expected in EXPECTED.items():
                kernel = Kernel(name, ["x"], ["y"], "const uint i = thread_position_in_grid.x;\n" + BODIES[name])
                signature = make_signature(kernel, [Input("float32", 1, False)], ["float32"], [])
                library = build(compiler, kernel, runnable_source(kernel, signature), checked)
                run = [emulator, "-L", sysroot, launcher, runtime, library, str(int(checked))]
                done = subprocess.run(run, capture_output=True, text=True, check=False)
                if done.stdout.strip() != expected:
                    gave = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
                    raise UserError(f"{name}, {switch}: expected {expected[:60]}, got {gave[:60]}")
            print(f"arm64 Linux: {len(EXPECTED)} launches are right, fibers switched by {switch}")


PARTS: dict[str, Callable[[Path], None]] = {"macos": macos, "linux": linux}


def main(arguments: list[str]) -> int:
    unknown = set(arguments) - PARTS.keys()
    try:
        if unknown:
            raise Missing(f"expected {' or '.join(PARTS)}, got {unknown.pop()}")
        for part in arguments or PARTS:
            with tempfile.TemporaryDirectory() as folder:
                PARTS[part](Path(folder).resolve())
    except (Missing, UserError) as error:
        print(f"cross_compile: {error}", file=sys.stderr)
        return 2 if isinstance(error, Missing) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
