"""The BLAS that MLX calls, seen from fresh interpreters: what is in front is decided once in a process."""

import os
import platform
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.machine import blas

HAS_MKL = any("libmkl_rt" in library for library in blas._libraries()) if sys.platform == "linux" else False
needs_mkl = pytest.mark.skipif(not (HAS_MKL and blas._links_reference()), reason="needs mlx[cpu] and mkl on Linux")
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux wheels link the reference BLAS")

MULTIPLY = """
import mlx.core as mx
x = mx.random.normal((300, 200), key=mx.random.key(0))
mx.eval(x @ x.T)
"""


def run(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MKL_", "OMP_", "LD_PRELOAD"))}
    command = [sys.executable, "-W", "always", "-c", code]
    return subprocess.run(command, env=clean | environ, capture_output=True, text=True, check=True)


@needs_mkl
def test_mlx_multiplies_with_mkl_once_the_package_is_imported():
    done = run("import mlx_autoresearch" + MULTIPLY, MKL_VERBOSE="1")  # MKL then prints a line a call
    assert "SGEMM" in done.stdout
    assert done.stderr == ""


@needs_mkl
def test_a_late_import_warns_once_and_leaves_mlx_as_it_was():
    done = run(
        MULTIPLY + "import mlx_autoresearch" + MULTIPLY + "print(mlx_autoresearch.machine.blas.name())", MKL_VERBOSE="1"
    )
    assert "SGEMM" not in done.stdout
    assert done.stdout.endswith(blas.REFERENCE + "\n")
    assert done.stderr.count("RuntimeWarning") == 1
    assert "import mlx_autoresearch before" in done.stderr


@needs_mkl
def test_two_processes_compute_the_same_bits():
    code = """
import hashlib, mlx_autoresearch, mlx.core as mx, numpy as np
x = mx.random.normal((700, 129), key=mx.random.key(1))
w = mx.random.normal((129, 1025), key=mx.random.key(2)) / 129
for _ in range(20):
    w = w - 0.01 * x.T @ mx.tanh(x @ w)
print(hashlib.sha256(np.array(w)).hexdigest())
"""
    first, second = run(code), run(code)
    assert first.stdout == second.stdout != ""


@needs_mkl
def test_settings_are_given_only_where_the_user_has_none():
    code = "import os, mlx_autoresearch; print(os.environ['MKL_CBWR'])"
    assert run(code).stdout == "AUTO\n"
    assert run(code, MKL_CBWR="COMPATIBLE").stdout == "COMPATIBLE\n"
    threads = "import mlx_autoresearch; print(mlx_autoresearch.machine.blas.threads())"
    assert run(threads, OMP_NUM_THREADS="1").stdout == "1\n"


@linux
@pytest.mark.parametrize(("cpus", "given", "expected"), [(8, None, "3"), (8, "7", "7"), (3, None, None)])
def test_a_containers_quota_bounds_the_threads(
    monkeypatch: pytest.MonkeyPatch, cpus: int, given: str | None, expected: str | None
):
    monkeypatch.setattr(blas, "_symbol", lambda _: False)
    monkeypatch.setattr(blas, "_libraries", lambda: [])
    monkeypatch.setattr(blas, "_links_reference", lambda: False)
    monkeypatch.setattr(blas, "cpu_quota", lambda: 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cpus))
    monkeypatch.setattr(os, "environ", {} if given is None else {"OMP_NUM_THREADS": given})
    blas.load()
    assert os.environ.get("OMP_NUM_THREADS") == expected


@pytest.mark.parametrize(
    ("content", "expected"), [("max 100000", None), ("250000 100000", 3), ("200000 100000", 2), ("garbage", None)]
)
def test_cpu_quota_reads_cgroup_v2(monkeypatch: pytest.MonkeyPatch, content: str, expected: int | None):
    monkeypatch.setattr(Path, "read_text", lambda _: content)
    assert blas.cpu_quota() == expected


@linux
@pytest.mark.skipif(platform.machine() != "x86_64", reason="MKL is for x86-64")
def test_a_missing_mkl_warns_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(blas, "_symbol", lambda _: False)
    monkeypatch.setattr(blas, "_libraries", lambda: ["libmkl_rt.so.is_not_here"])
    monkeypatch.setattr(blas, "_links_reference", lambda: True)
    with pytest.warns(RuntimeWarning, match="pip install mkl"):
        blas.load()


@linux
def test_a_preloaded_blas_is_left_in_front(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(blas, "_symbol", lambda function: function == "cblas_sgemm")
    monkeypatch.setattr(blas, "_libraries", lambda: pytest.fail("looked for another"))
    blas.load()
    assert blas.name() == "a preloaded BLAS"


def test_mlx_without_a_backend_says_which_extra_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    with pytest.raises(UserError, match=r"mlx_autoresearch\[cpu\]") as caught:
        blas.require_mlx()
    assert "\n" not in str(caught.value)


def test_mlx_is_found():
    assert find_spec("mlx") is not None
    blas.require_mlx()
