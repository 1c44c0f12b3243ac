"""The workflow cannot run here. What can be told by reading it is: what it calls exists, and every job ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in FILES:
        yield from yaml.safe_load(file.read_text())["jobs"].items()


def commands() -> Iterator[str]:
    for _, job in jobs():
        for step in job["steps"]:
            yield from step.get("run", "").splitlines()


def runners(job: dict[str, Any]) -> set[str]:
    matrix = job["strategy"]["matrix"]
    return {entry["os"] for entry in matrix["include"]} if "include" in matrix else set(matrix["os"])


def test_every_job_and_its_steps_end_and_may_only_read() -> None:
    for file in FILES:
        assert yaml.safe_load(file.read_text())["permissions"] == {"contents": "read"}
    for name, job in jobs():
        assert job["timeout-minutes"] <= 60, name
        assert all(step.get("timeout-minutes", 0) < job["timeout-minutes"] for step in job["steps"])


def test_it_names_the_machines_that_users_have() -> None:
    systems = {"ubuntu-24.04", "ubuntu-24.04-arm", "macos-14", "macos-15", "macos-26"}
    found = dict(jobs())
    assert runners(found["tests"]) == systems
    assert runners(found["metal"]) == {name for name in systems if name.startswith("macos")}
    python = re.search(r'requires-python = ">=3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert python
    for _, job in jobs():
        (given,) = [step["with"]["python-version"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
        assert int(given.split(".")[1]) >= int(python[1])


def test_what_it_calls_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M))
    called: set[str] = set()
    for line in commands():
        for words in re.findall(r"\bmake ([^|>&\"]*)", line):
            called |= {word for word in words.split() if re.fullmatch(r"[a-z-]+", word)}
        for path in re.findall(r"\b(?:configs|scripts|tests)/[\w./-]+", line):
            assert (ROOT / path).exists(), path
    assert called <= targets
    assert called >= {"setup", "verify-kernels", "verify-metal", "test", "prepare", "train", "research"}
    assert any("scripts/compile_metal.py" in line for line in commands())


def test_the_interpreter_that_it_sets_up_is_the_one_that_is_used() -> None:
    for name, job in jobs():
        made = [step["run"] for step in job["steps"] if "make " in step.get("run", "")]
        assert made[0] == "make setup PYTHON=python", name


def test_actions_are_pinned_and_output_is_kept_whatever_fails() -> None:
    for _, job in jobs():
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])
    upload = next(job for name, job in jobs() if name == "metal")["steps"][-1]
    assert upload["uses"].startswith("actions/upload-artifact@") and upload["if"] == "always()"
    assert upload["with"]["path"].split() == ["output", "runs"]


def test_a_failure_in_front_of_a_pipe_is_a_failure() -> None:
    for file in FILES:
        assert yaml.safe_load(file.read_text())["defaults"]["run"]["shell"] == "bash"  # GitHub adds pipefail to this


# Knows two versions, and refuses one kernel as Apple's compiler would.
XCRUN = """#!/bin/sh
for word in "$@"; do case $word in *.metal) source=$(cat "$word");; esac; done
case "$*" in *" -fno-fast-math "*) ;; *) exit 70;; esac
case "$*" in *metal4.*) echo "error: invalid value in '-std='" >&2; exit 1;; esac
case "$*" in *"-W$UNKNOWN"*|*"=$UNKNOWN"*) echo "error: unknown warning option '-W$UNKNOWN'" >&2; exit 1;; esac
case "$source" in *custom_kernel_"$BROKEN"\\(*)
    echo "warning: something else" >&2; echo "<stdin>:7:3: error: expected unqualified-id" >&2; exit 1;; esac
"""


def compile_metal(
    folder: Path, broken: str, program: str | None = XCRUN, required: tuple[str, ...] = (), unknown: str = "none"
) -> subprocess.CompletedProcess[str]:
    if program:
        (folder / "xcrun").write_text(program)
        (folder / "xcrun").chmod(0o755)
    env = os.environ | {"PATH": f"{folder}:/usr/bin:/bin" if program else str(folder), "BROKEN": broken}
    env |= {"UNKNOWN": unknown}
    command = [sys.executable, str(ROOT / "scripts/compile_metal.py"), *required]
    return subprocess.run(command, env=env, capture_output=True, text=True)


def test_every_kernel_is_compiled_for_every_version_that_the_compiler_knows(tmp_path: Path) -> None:
    done = compile_metal(tmp_path, "none")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["metal3.1", "metal3.2", "metal4.0", "metal4.1"]
    assert re.fullmatch(r"metal3\.1: 18 kernels, \d{2,} sources -Werror=metal-addr-spaces", lines[0])
    assert all("not known to this compiler" in line for line in lines[2:])


def test_a_warning_that_the_compiler_does_not_know_is_not_asked_for(tmp_path: Path) -> None:
    done = compile_metal(tmp_path, "none", unknown="metal-addr-spaces")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"metal3\.1: 18 kernels, \d{2,} sources", done.stdout.splitlines()[0])


def test_a_kernel_that_does_not_compile_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    done = compile_metal(tmp_path, "newton_schulz_gram")
    assert done.returncode == 1
    assert done.stdout.count("newton_schulz_gram does not compile: <stdin>:7:3: error: expected unqualified-id") == 2
    assert done.stdout.count("18 kernels") == 2


def test_a_version_that_must_be_known_and_is_not_is_an_error(tmp_path: Path) -> None:
    assert compile_metal(tmp_path, "none", required=("metal3.2",)).returncode == 0
    for version, said in (
        ("metal4.0", "metal4.0 is not known to this compiler"),
        ("metal9", "the versions are metal3.1"),
    ):
        done = compile_metal(tmp_path, "none", required=(version,))
        assert done.returncode == 2
        assert said in done.stderr and done.stderr.count("\n") == 1


def test_each_mac_must_know_its_version_of_the_language() -> None:
    metal = next(job for name, job in jobs() if name == "metal")
    versions = {machine["os"]: machine["language"] for machine in metal["strategy"]["matrix"]["include"]}
    assert versions == {"macos-14": "metal3.1", "macos-15": "metal3.2", "macos-26": "metal4.0"}
    assert any("compile_metal.py ${{ matrix.language }}" in line for line in commands())


def test_no_line_hides_a_failure() -> None:
    """`bash -e` goes on after a line that begins with `!`, whatever comes of it."""
    assert not [line for line in commands() if line.lstrip().startswith("!")]


@pytest.mark.parametrize(
    "program, said",
    [
        (None, "xcrun is missing"),
        ("#!/bin/sh\necho 'error: unable to find utility metal' >&2; exit 72\n", "unable to find"),
    ],
)
def test_without_the_compiler_one_line_says_so(tmp_path: Path, program: str | None, said: str) -> None:
    done = compile_metal(tmp_path, "none", program)
    assert done.returncode == 2
    assert said in done.stderr and done.stderr.count("\n") == 1 and not done.stdout
