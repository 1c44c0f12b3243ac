"""The process above an untrusted command: starts it confined, enforces its limits, and leaves nothing running.

`python -m mlx_autoresearch.sandbox.supervisor CONTROL RESULT`, two file descriptors. CONTROL gives a `Command` as one
line of JSON and then stays open: its end means that the process that started this one has died. RESULT takes a line of
JSON. On Linux orphans of the command come to this process (PR_SET_CHILD_SUBREAPER), which is not done while it has a
child: daemons are found whatever they do. Elsewhere they are followed; docs/research.md says which are not found.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from dataclasses import asdict, dataclass
from typing import Literal

from mlx_autoresearch.machine import system
from mlx_autoresearch.machine.processes import memory

from . import mounts
from .confinement import OWN_THREADS, Confinement
from .processes import MARK, SEPARATOR, Family, Process, kill_all, marked

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_POLL, _LOOK = 0.02, 0.2  # seconds between two looks at the command, and at least between two at all its processes
_REST = 20  # a look is followed by a pause so many times as long: macOS has many processes, and a training is timed

Ended = Literal["exit", "timeout", "memory", "stopped"]


@dataclass(frozen=True)
class Command:
    """What to run and within which limits.

    mark: goes into the environment; see processes.py. seconds: wall clock. memory_mb: of the whole tree, MiB, as
    machine/processes.py counts it; None for no limit. confinement: None for none; namespaces: whether it takes those of
    mounts.py. stdin: a file. keep: file descriptors that the command inherits.
    """

    argv: list[str]
    cwd: str
    env: dict[str, str]
    mark: str
    seconds: float
    memory_mb: float | None
    confinement: Confinement | None
    namespaces: bool
    stdin: str
    keep: list[int]


@dataclass(frozen=True)
class Result:
    """How it ended.

    leftovers: processes that outlived the command and were killed. seconds: wall time. peak_mb: memory of all, MiB.
    trouble: why the supervisor could not do its work; empty where it could.
    """

    returncode: int | None
    ended: Ended
    leftovers: int
    seconds: float
    peak_mb: float
    trouble: str = ""


def main(control: int, result: int) -> None:
    """Read the command, run it, write the result."""
    if system.is_linux():
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
    ):  # the process that started this one decides when to stop
        signal.signal(number, signal.SIG_IGN)
    line = b""
    while not line.endswith(b"\n"):
        more = os.read(control, 65536)
        if not more:
            return
        line += more
    command = _read(line)
    for fd in (control, result):
        os.set_inheritable(fd, False)
    pid = os.fork()
    if pid == 0:
        _become(command)
    own = _own_figures(pid)
    for fd in (*command.keep, 1, 2):  # our copies: with them open, the readers would never see the end of file
        os.close(fd)
    try:
        outcome = _watch(command, pid, control)
    except Exception as error:  # nobody reads a traceback here: say it where it is read
        outcome = Result(None, "stopped", 0, 0.0, 0.0, f"the supervisor failed: {type(error).__name__}: {error}")
    if own is not None:
        os.close(own)
    os.write(result, json.dumps(asdict(outcome)).encode() + b"\n")


def _read(line: bytes) -> Command:
    values = json.loads(line)
    allowed = values.pop("confinement")
    return Command(**values, confinement=None if allowed is None else Confinement(**allowed))


def _own_figures(pid: int) -> int | None:
    """Hold a process's folder of /proc open: the kernel may forget it otherwise, and a rule of Landlock with it."""
    try:
        return os.open(f"/proc/{pid}", getattr(os, "O_PATH", 0) | os.O_CLOEXEC)
    except OSError:  # it has ended, or this is no Linux
        return None


def _become(command: Command) -> None:
    """The child after the fork: never returns."""
    try:
        os.setsid()
        if system.is_linux():
            parent = os.getppid()
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(127)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for fd in command.keep:
            os.set_inheritable(fd, True)
        if command.confinement is not None and command.namespaces:
            mounts.only_writable([*command.confinement.writable, OWN_THREADS])
        os.dup2(os.open(command.stdin, os.O_RDONLY), 0)  # not before: its mode could be changed through a descriptor
        if command.confinement is not None:
            command.confinement.enter(attributes=command.namespaces)
        os.chdir(command.cwd)
        # The separator ends the mark: so it is found on macOS as well, where `ps` shows no end of a variable.
        os.execvpe(command.argv[0], command.argv, command.env | {MARK: command.mark + SEPARATOR})
    except OSError as error:
        os.write(2, f"cannot run {command.argv[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _watch(command: Command, pid: int, control: int) -> Result:
    start = time.monotonic()
    family = Family(pid)

    def tree() -> set[Process]:
        return {*family.look(), *marked(command.mark)}

    ended: Ended = "exit"
    returncode: int | None = None
    peak = 0
    next_look = start + _LOOK
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            returncode = os.waitstatus_to_exitcode(status)
            break
        now = time.monotonic()
        if now > next_look:
            peak = max(peak, memory(family.look()))
            took = time.monotonic() - now
            next_look = now + took + max(_LOOK, _REST * took)
            if command.memory_mb is not None and peak > command.memory_mb * 2**20:
                ended = "memory"
                break
        if now - start > command.seconds:
            ended = "timeout"
            break
        if select.select([control], [], [], _POLL)[0]:
            ended = "stopped"
            break
    seconds = time.monotonic() - start
    killed, trouble = 0, ""
    try:
        killed = kill_all(tree, adopts=system.is_linux())
    except TimeoutError as error:
        trouble = str(error)
    return Result(returncode, ended, killed if ended == "exit" else 0, seconds, peak / 2**20, trouble)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
