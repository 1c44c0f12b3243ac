"""scripts/numeric_matrix.py: which code paths it makes, what it skips and why, and when it fails."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parents[1] / "scripts/numeric_matrix.py"
SCRIPT = runpy.run_path(str(FILE))
linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is one BLAS")


def paths(flags: set[str], **libraries: Any) -> dict[str, Any]:
    given = {"mkl": True, "openblas": "libopenblas.so.0", "reference": "/wheel/libblas.so"} | libraries
    return {path.name: path for path in SCRIPT["code_paths"](flags, **given)}


def rows(*answers: dict[str, Any] | None, output: str = "", short: bool = False) -> list[Any]:
    """The table of paths whose products are these answers."""
    made = [SCRIPT["CodePath"](f"path {i}", {"I": str(i)}) for i in range(len(answers))]
    fakes = {"probe": lambda variables: answers[int(variables["I"])], "run": lambda *_: output}
    return list(SCRIPT["run_matrix"](made, [], short=short, **fakes))


def product(bits: str = "aa", threads: int = 2, right: bool = True) -> dict[str, Any]:
    return {"blas": "some BLAS", "threads": threads, "bits": bits, "right": right}


def test_flags_are_those_of_the_first_processor() -> None:
    text = "processor\t: 0\nflags\t\t: fpu sse4_2 avx2\n\nprocessor\t: 1\nflags\t\t: other\n"
    assert SCRIPT["cpu_flags"](text) == {"fpu", "sse4_2", "avx2"}
    assert SCRIPT["cpu_flags"]("processor\t: 0\nFeatures\t: asimd\n") == set()


def test_instructions_that_the_processor_lacks_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    made = paths({"sse4_2", "avx2"})
    assert {name for name, path in made.items() if path.missing} == {"MKL, AVX-512", "OpenBLAS, AVX-512"}
    assert made["MKL, AVX-512"].missing == "this processor lacks AVX-512"
    assert made["MKL, AVX2"].variables == {"MKL_ENABLE_INSTRUCTIONS": "AVX2"}
    assert made["OpenBLAS, AVX2"].variables["OPENBLAS_CORETYPE"] == "Haswell"


def test_a_library_that_is_not_there_is_named() -> None:
    made = paths({"sse4_2", "avx2", "avx512f"}, mkl=False, openblas=None, reference=None)
    assert [name for name, path in made.items() if not path.missing] == ["as installed"]
    assert "apt install libopenblas0" in made["OpenBLAS, threads 1"].missing


def test_kernels_that_the_user_chose_for_openblas_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert paths({"sse4_2"})["OpenBLAS, SSE4.2"].missing == "OPENBLAS_CORETYPE is set"


def test_a_path_is_run_only_where_it_computes_otherwise() -> None:
    first, same, threads, bits = rows(product(), product(), product(threads=4), product("bb"))
    assert [row.result for row in (first, same, threads, bits)] == ["passed", "skipped", "passed", "passed"]
    assert "'path 0'" in same.note
    assert bits.note == "some BLAS, threads 2, bits bb"


def test_the_short_one_asks_for_other_bits() -> None:
    made = rows(product(), product(threads=4), product("bb", threads=4), short=True)
    assert [row.result for row in made] == ["passed", "skipped", "passed"]


def test_failures_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert [row.note for row in rows(None, product(right=False))] == ["a product crashes", "products are wrong"]
    (row,) = rows(product(), output="1 failed")
    assert row.result == "failed"
    assert "path 0" in (printed := capsys.readouterr().out) and "1 failed" in printed


@pytest.mark.parametrize(
    ("results", "code"), [(["passed", "skipped"], 0), (["passed", "failed"], 1), (["skipped"], 1)], ids=str
)
def test_it_fails_with_a_path_and_where_none_ran(
    results: list[str], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [SCRIPT["Row"](f"path {i}", result, "a note") for i, result in enumerate(results)]
    monkeypatch.setitem(SCRIPT["main"].__globals__, "here", lambda: [])
    monkeypatch.setitem(SCRIPT["main"].__globals__, "run_matrix", lambda *_, **__: made)
    assert SCRIPT["main"]([]) == code
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].split() == ["path", "0", results[0], "-", "a", "note"]
    assert printed[-1].startswith(f"paths: {results.count('passed')} passed, {results.count('failed')} failed")


def test_a_failing_test_is_a_failing_path(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("import os\ndef test_it():\n    assert os.environ['WANTED'] == 'yes'\n")
    run = SCRIPT["run_tests"]
    assert run({"WANTED": "yes"}, [str(tmp_path)]) == ""
    assert "1 failed" in run({"WANTED": "no"}, [str(tmp_path)])
    assert "1 deselected" in run({}, [str(tmp_path), "-k", "nothing"])


def test_numpy_is_not_told_which_kernels_to_take() -> None:
    code = "print(os.environ.get('OPENBLAS_CORETYPE'))"
    assert SCRIPT["python"](code, {"OPENBLAS_CORETYPE": "Haswell"}).stdout == "None\n"


def test_its_processes_inherit_no_other_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MKL_CBWR", "OMP_NUM_THREADS", "LD_PRELOAD"):
        monkeypatch.setenv(name, "theirs")
    given = SCRIPT["environment"]({"MKL_DYNAMIC": "FALSE"})
    assert "theirs" not in given.values()
    assert given["MKL_DYNAMIC"] == "FALSE"
    assert given["PATH"] == os.environ["PATH"]


@linux
def test_the_code_paths_of_this_machine_are_listed() -> None:
    done = subprocess.run([sys.executable, str(FILE), "--list"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[1].startswith("as installed")
    assert done.stdout.splitlines()[-1].startswith("paths: ")


def test_the_tests_it_runs_exist() -> None:
    for test in (*SCRIPT["SHORT"], *SCRIPT["FULL"]):
        file, _, function = test.rpartition("=")[2].partition("::")
        assert (FILE.parents[1] / file).exists(), file
        assert f"def {function}(" in (FILE.parents[1] / file).read_text() if function else True, function
