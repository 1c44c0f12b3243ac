"""Runs the numeric tests with every BLAS, instruction set and number of threads that this machine has.

    python scripts/numeric_matrix.py [--short] [--list]

MLX's CPU backend multiplies matrices with the BLAS in front (src/mlx_autoresearch/machine/blas.py), and every BLAS sums
in another order. Each code path runs in a process of its own. Before its tests, a few products are computed: where
bits, BLAS and threads are those of a path that has run, the settings changed nothing, and the path is skipped. Intel
MKL, for example, heeds MKL_ENABLE_INSTRUCTIONS on Intel's processors only. Skipped paths are named, with the reason.

--short runs the tests of gradients, accumulation and optimizer steps only, and skips a path also where only the number
of threads is new and the bits stay. --list says what would run, and runs no test. Exits with 1 when a path fails.
"""

from __future__ import annotations

import argparse
import ctypes.util
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHORT = [
    "tests/recipe/test_parity.py",
    "tests/recipe/test_step.py::test_accumulated_gradients_are_those_of_one_large_batch",
    "tests/recipe/test_step.py::test_the_compiled_step_computes_what_the_plain_one_does",
    "tests/recipe/test_attention.py::test_gradients_against_float64",
]
FULL = [
    *("tests/recipe", "tests/metric", "tests/training/test_trainer.py", "tests/test_public_api.py"),
    *(
        "--ignore=tests/recipe/kernels",
        "--deselect=tests/recipe/test_step.py::test_memory_is_flat_from_the_second_step_on",
    ),
]
SECONDS = 900  # that one path may take
# An instruction set's flag in /proc/cpuinfo, its name for MKL, and the OpenBLAS kernels that use it.
INSTRUCTIONS = {
    "SSE4.2": ("sse4_2", "SSE4_2", "Nehalem"),
    "AVX2": ("avx2", "AVX2", "Haswell"),
    "AVX-512": ("avx512f", "AVX512", "SkylakeX"),
}
# OpenBLAS chooses its kernels when it is loaded, before Python begins. The variable is then removed: NumPy brings an
# OpenBLAS of its own, and NumPy 2.5's crashes on some processors with kernels that were chosen for it.
FORGET = "import os; os.environ.pop('OPENBLAS_CORETYPE', None)\n"
PYTEST = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
# Shapes at which kernels, their edges and their threads differ; wrong digits are another BLAS's fault, not ours.
PROBE = """
import hashlib, json
import mlx_autoresearch
import mlx.core as mx, numpy as np
from mlx_autoresearch.machine import blas
mx.set_default_device(mx.cpu)
digest, right = hashlib.sha256(), True
for m, k, n in ((64, 16, 64), (33, 513, 31), (300, 200, 1025), (128, 2048, 128)):
    a, b = (np.random.default_rng(i).standard_normal(s).astype(np.float32) for i, s in enumerate(((m, k), (k, n))))
    c = np.array(mx.array(a) @ mx.array(b))
    digest.update(c.tobytes())
    right &= bool(np.abs(c - a.astype(np.float64) @ b.astype(np.float64)).max() < 1e-2)
print(json.dumps({"blas": blas.name(), "threads": blas.threads(), "bits": digest.hexdigest(), "right": right}))
"""


@dataclass(frozen=True)
class CodePath:
    """A way to compute: the variables that choose it, or the reason why it cannot be had here."""

    name: str
    variables: dict[str, str] = field(default_factory=dict)
    missing: str = ""


@dataclass(frozen=True)
class Row:
    """A line of the table. result: passed, failed or skipped; note: the reason, or what it computed with."""

    name: str
    result: str
    note: str
    seconds: float = 0.0


def cpu_flags(cpuinfo: str) -> set[str]:
    """The flags of the first processor in the text of /proc/cpuinfo; none on arm64, whose line has another name."""
    return next(
        (set(line.partition(":")[2].split()) for line in cpuinfo.splitlines() if line.startswith("flags")), set()
    )


def code_paths(flags: set[str], *, mkl: bool, openblas: str | None, reference: str | None) -> Iterator[CodePath]:
    """All code paths, those that cannot be had among them.

    openblas and reference: libraries for LD_PRELOAD. A variable set by the user for OpenBLAS stays as it is: some
    processors need it.
    """
    yield CodePath("as installed")
    no_mkl = "" if mkl else "Intel MKL is not installed"
    for threads in ("1", "2", "4"):
        exact = {"MKL_DYNAMIC": "FALSE", "OMP_NUM_THREADS": threads}  # also more threads than processors
        yield CodePath(f"MKL, threads {threads}", exact, no_mkl)
    for name, (flag, for_mkl, _) in INSTRUCTIONS.items():
        lacking = "" if flag in flags else f"this processor lacks {name}"
        yield CodePath(f"MKL, {name}", {"MKL_ENABLE_INSTRUCTIONS": for_mkl}, no_mkl or lacking)
    yield CodePath("MKL, compatible", {"MKL_CBWR": "COMPATIBLE"}, no_mkl)

    no_openblas = "" if openblas else "OpenBLAS is not installed (Debian and Ubuntu: apt install libopenblas0)"
    front = {"LD_PRELOAD": openblas or ""}
    for threads in ("1", "2", "4"):
        yield CodePath(f"OpenBLAS, threads {threads}", front | {"OMP_NUM_THREADS": threads}, no_openblas)
    chosen = "OPENBLAS_CORETYPE is set" if "OPENBLAS_CORETYPE" in os.environ else ""
    for name, (flag, _, kernels) in INSTRUCTIONS.items():
        lacking = "" if flag in flags else f"this processor lacks {name}"
        yield CodePath(f"OpenBLAS, {name}", front | {"OPENBLAS_CORETYPE": kernels}, no_openblas or lacking or chosen)
    no_reference = "" if reference else "MLX's wheel carries none"
    yield CodePath("reference BLAS", {"LD_PRELOAD": reference or ""}, no_reference)


def environment(variables: dict[str, str]) -> dict[str, str]:
    """Ours, without what would choose another code path."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("MKL_", "OMP_")) and k != "LD_PRELOAD"}
    packages = [str(ROOT / "src"), *filter(None, [ours.get("PYTHONPATH")])]
    return ours | {"PYTHONPATH": os.pathsep.join(packages)} | variables


def python(
    code: str, variables: dict[str, str], *arguments: str, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a process of its own under these variables."""
    command = [sys.executable, "-c", (FORGET if "OPENBLAS_CORETYPE" in variables else "") + code, *arguments]
    return subprocess.run(
        command, env=environment(variables), cwd=ROOT, capture_output=True, text=True, timeout=timeout
    )


def probe(variables: dict[str, str]) -> dict[str, object] | None:
    """What multiplies under these variables, and a digest of its bits; None where it crashes."""
    done = python(PROBE, variables)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def run_tests(variables: dict[str, str], tests: list[str]) -> str:
    """An empty string, or the end of what the tests printed where they did not all pass."""
    try:
        done = python(PYTEST, variables, "-q", "-p", "no:cacheprovider", *tests, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return f"not done after {SECONDS} seconds"
    return "" if done.returncode == 0 else "\n".join((done.stdout + done.stderr).splitlines()[-60:])


def run_matrix(
    paths: Iterable[CodePath],
    tests: list[str],
    *,
    short: bool = False,
    probe: Callable[[dict[str, str]], dict[str, object] | None] = probe,
    run: Callable[[dict[str, str], list[str]], str] = run_tests,
) -> Iterator[Row]:
    """Runs the tests on every code path that differs from those before it."""
    seen: dict[str, str] = {}
    for path in paths:
        if path.missing:
            yield Row(path.name, "skipped", path.missing)
            continue
        found = probe(path.variables)
        if found is None:
            yield Row(path.name, "failed", "a product crashes")
            continue
        if not found["right"]:
            yield Row(path.name, "failed", "products are wrong")
            continue
        threads = None if short else found["threads"]
        if (twin := seen.setdefault(json.dumps(found | {"threads": threads}), path.name)) != path.name:
            yield Row(
                path.name, "skipped", f"computes the same bits as '{twin}'{'' if short else ', on as many threads'}"
            )
            continue
        begun = time.monotonic()
        output = run(path.variables, tests)
        seconds = time.monotonic() - begun
        if output:
            print(f"== {path.name}: {path.variables}\n{output}", flush=True)
        note = f"{found['blas']}, threads {found['threads']}, bits {str(found['bits'])[:8]}"
        yield Row(path.name, "failed" if output else "passed", note, seconds)


def table(rows: Iterable[Row]) -> Iterator[str]:
    yield f"{'code path':22} {'result':8} {'seconds':>7}  computed with, or reason"
    for row in rows:
        yield f"{row.name:22} {row.result:8} {f'{row.seconds:.1f}' if row.seconds else '-':>7}  {row.note}"


def here() -> Iterator[CodePath]:
    """The code paths of this machine."""
    if not sys.platform.startswith("linux"):  # Accelerate has no others
        return iter([CodePath("as installed")])
    cpuinfo = Path("/proc/cpuinfo").read_text() if platform.machine() == "x86_64" else ""
    spec = importlib.util.find_spec("mlx")
    folders = [Path(p).with_name("mlx_cpu.libs") for p in (spec and spec.submodule_search_locations) or []]
    reference = next((str(file) for folder in folders for file in sorted(folder.glob("libblas*.so*"))), None)
    installed = probe({})
    mkl = installed is not None and installed["blas"] == "Intel MKL"
    return code_paths(cpu_flags(cpuinfo), mkl=mkl, openblas=ctypes.util.find_library("openblas"), reference=reference)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="gradients, accumulation and optimizer steps only")
    parser.add_argument("--list", action="store_true", help="say what would run, and run no test")
    options = parser.parse_args(arguments)
    tests = SHORT if options.short else FULL
    rows = list(run_matrix(here(), tests, short=options.short, run=(lambda *_: "") if options.list else run_tests))
    print(*table(rows), sep="\n")
    count = {result: sum(row.result == result for row in rows) for result in ("passed", "failed", "skipped")}
    print(f"paths: {count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    return 1 if count["failed"] or not count["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
