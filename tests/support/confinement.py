"""Whether this machine, or the simulated Mac, confines commands; a confinement such as a trial gets; tries in it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from mlx_autoresearch.sandbox import confinement
from mlx_autoresearch.sandbox.command import Outcome, run_command
from mlx_autoresearch.sandbox.confinement import Confinement
from mlx_autoresearch.sandbox.environment import clean_environment
from mlx_autoresearch.sandbox.readable import devices, private_places, python_files, system_files

HERE = confinement.here()
confined = pytest.mark.skipif(HERE.startswith("none"), reason=HERE)
filtered = pytest.mark.skipif("seccomp" not in HERE.split("(")[0], reason=HERE)
REFUSED = ("Operation not permitted", "Permission denied")
# Every attempt is one call; it must raise PermissionError, or where `pretended` say that it is done.
CALLS = "import ctypes, os, socket, sys\nlibc = ctypes.CDLL(None, use_errno=True)\n"
CALLS += "def call(*words):\n"
CALLS += "    if libc.syscall(*words) < 0: raise OSError(ctypes.get_errno(), 'refused')\n"


def confined_to(
    *writable: Path, network: bool = False, readable: Iterable[Path] = (), closed: Iterable[Path] = ()
) -> Confinement:
    """What lets Python run, write in `writable`, and read `readable` besides."""
    return confinement.confinement(
        readable=[*system_files(network=network), *python_files(), *readable],
        writable=writable,
        closed=[*private_places(), *closed],
        devices=devices(gpu=False),
        network=network,
    )


def run(program: str, allowed: Confinement, folder: Path, **more: str) -> Outcome:
    return run_command(
        [sys.executable, "-c", CALLS + program],
        cwd=folder,
        env=clean_environment(folder, folder, **more),
        seconds=60.0,
        mark=str(folder),
        confinement=allowed,
    )


def attempts(*tries: str) -> str:
    """A program that prints each attempt, and what came of it."""
    return f"""
for attempt in {list(tries)!r}:
    try: exec(attempt); said = "done"
    except OSError as error: said = os.strerror(error.errno)
    print(attempt, "->", said)
"""


def answers(outcome: Outcome) -> dict[str, str]:
    assert outcome.returncode == 0, outcome.output
    return dict(line.rsplit(" -> ", 1) for line in outcome.output.splitlines())


def assert_all(outcome: Outcome, *expected: str) -> None:
    found = answers(outcome)
    others = {k: v for k, v in found.items() if v not in expected}
    assert found and not others, others
