"""Runs an untrusted command: time and memory limits, few environment variables, capped output, no survivors."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from mlx_autoresearch.plain_text import printable

from .confinement import Confinement, has_namespaces
from .processes import SEPARATOR, kill_all, marked
from .supervisor import Command, Result

KEPT_BYTES = 1 << 20  # of a command's output: half from its beginning, half from its end
MAX_BYTES = 256 << 20  # more than that, and the command is stopped
_POLL_SECONDS = 0.05  # between two looks whether it printed too much
_GRACE_SECONDS = 30.0  # beyond its limit, for a supervisor that kills; a command can stop its supervisor
_LAST_OUTPUT_SECONDS = 2.0  # for what is still in the pipe when all is over; a process not found may hold the pipe open

Ended = Literal["exit", "timeout", "memory", "output", "stopped", "lost"]


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    ended: "exit" by itself, with `returncode` (negative: the signal); "timeout", "memory" or "output": a limit;
    "stopped": by `Running.stop`; "lost": its supervisor was killed, or failed, and `trouble` says so. output: what it
    printed, printable, its middle left out where it was long. leftovers: processes it left behind, all killed.
    peak_mb: memory of all its processes, MiB, as machine/processes.py counts it.
    """

    returncode: int | None
    ended: Ended
    output: str
    leftovers: int
    seconds: float
    peak_mb: float
    trouble: str = ""


class Running:
    """A command under its supervisor; leaving the context stops it and waits until every process of it is gone."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        seconds: float,
        mark: str,
        memory_mb: float | None = None,
        confinement: Confinement | None = None,
        stdin: Path | None = None,
        keep: Sequence[int] = (),
    ):
        """Start the command.

        argv: the program and its arguments. cwd: the folder it starts in. env: its whole environment.
        seconds: wall clock, then it is killed.
        mark: by which a later process finds what this one could not kill; see processes.py.
        memory_mb: of the whole process tree, MiB, then it is killed; None for no limit. See machine/processes.py.
        confinement: what it and its descendants may do; None does not confine it.
        stdin: a file; None for an empty one.
        keep: file descriptors that it inherits; they are closed in this process.
        """
        self._mark = f"{mark}{SEPARATOR}{uuid.uuid4().hex}"
        words = [str(a) for a in argv]
        control, self._control = os.pipe()
        self._result, result = os.pipe()
        command = Command(
            argv=confinement.around(words) if confinement else words,
            cwd=str(cwd),
            env=dict(env),
            mark=self._mark,
            seconds=seconds,
            memory_mb=memory_mb,
            confinement=confinement,
            namespaces=confinement is not None and has_namespaces(),
            stdin=str(stdin or os.devnull),
            keep=list(keep),
        )
        self._started, self._seconds = time.monotonic(), seconds
        self._too_much = False
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "mlx_autoresearch.sandbox.supervisor", str(control), str(result)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[control, result, *keep],
            start_new_session=True,
        )
        for fd in (control, result, *keep):
            os.close(fd)
        self._head, self._tail, self._bytes = bytearray(), deque[bytes](), 0
        self._all_over: float | None = None  # when all processes that were found had ended
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        with suppress(BrokenPipeError):
            self._send(json.dumps(asdict(command)).encode() + b"\n")
        self._outcome: Outcome | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        """Whether the supervisor still runs, and the command has not printed too much."""
        return self._process.poll() is None and not self._too_much

    def stop(self) -> Outcome:
        """End the command now."""
        if self._control is not None:
            os.close(self._control)
            self._control = None
        return self.wait()

    def wait(self) -> Outcome:
        """Wait until the command has ended, by itself or at a limit, and all its processes are gone."""
        if self._outcome is not None:
            return self._outcome
        while self._process.poll() is None:
            if self._too_much and self._control is not None:
                os.close(self._control)
                self._control = None
            if time.monotonic() > self._started + self._seconds + _GRACE_SECONDS:
                self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_POLL_SECONDS)
        line = b""
        while more := os.read(self._result, 65536):
            line += more
        os.close(self._result)
        result = Result(**json.loads(line)) if line else None
        trouble = result.trouble if result else "its supervisor was killed"
        if result is None:
            try:
                kill_all(lambda: marked(self._mark))
            except TimeoutError as error:
                trouble += f", and {error}"
        if self._control is not None:
            os.close(self._control)
            self._control = None
        self._all_over = time.monotonic()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        ended: Ended = "lost" if trouble or not result else "output" if self._too_much else result.ended
        self._outcome = Outcome(
            returncode=result.returncode if result else None,
            ended=ended,
            output=self._text(),
            leftovers=result.leftovers if result else 0,
            seconds=result.seconds if result else time.monotonic() - self._started,
            peak_mb=result.peak_mb if result else 0.0,
            trouble=trouble,
        )
        return self._outcome

    def _send(self, data: bytes) -> None:
        while data and self._control is not None:
            data = data[os.write(self._control, data) :]

    def _read(self) -> None:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        kept = 0
        while True:
            over = self._all_over
            if over is not None and time.monotonic() > over + _LAST_OUTPUT_SECONDS:
                break
            if not waiting.poll(1000 * _POLL_SECONDS):
                continue
            try:
                data = os.read(descriptor, 1 << 16)
            except OSError:
                break
            if not data:
                break
            self._bytes += len(data)
            self._too_much = self._too_much or self._bytes > MAX_BYTES
            room = KEPT_BYTES // 2 - len(self._head)
            self._head += data[:room]
            if data[room:]:
                self._tail.append(data[room:])
                kept += len(data[room:])
                while kept - len(self._tail[0]) > KEPT_BYTES // 2:
                    kept -= len(self._tail.popleft())

    def _text(self) -> str:
        head, tail = bytes(self._head), b"".join(self._tail)
        left_out = self._bytes - len(head) - len(tail)
        middle = f"\n[... {left_out:,} bytes left out ...]\n" if left_out else ""
        return printable(head.decode(errors="replace") + middle + tail.decode(errors="replace"))


def run_command(argv: Sequence[str], *, transcript: Path | None = None, **limits: Any) -> Outcome:
    """Run a command to its end; arguments as `Running` takes them. transcript: a file for what it printed."""
    with Running(argv, **limits) as running:
        outcome = running.wait()
    if transcript is not None:
        transcript.write_text(outcome.output, encoding="utf-8")
    return outcome
