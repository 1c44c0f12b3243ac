"""Runs an untrusted command: time and memory limits, few environment variables, capped output, no survivors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from mlx_autoresearch.plain_text import printable

from .processes import MARK, kill_all, marked
from .supervisor import Command, Result

KEPT_BYTES = 1 << 20  # of a command's output: half from its beginning, half from its end
MAX_BYTES = 256 << 20  # more than that, and the command is stopped
# Nothing in here is a secret; a machine's credentials live in other variables.
_INHERITED = (
    *("PATH", "LANG", "LANGUAGE", "TZ", "TERM", "USER", "LOGNAME", "SHELL", "PYTHONPATH", "LD_LIBRARY_PATH"),
    *("NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_TF32_OVERRIDE"),  # NVIDIA_API_KEY is a secret
)
_PREFIXES = ("LC_", "MKL_", "OMP_", "OPENBLAS_", "KMP_", "MLX_", "METAL_", "CUDA_", "NCCL_")

Ended = Literal["exit", "timeout", "memory", "output", "stopped", "lost"]


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    ended: "exit" by itself, with `returncode` (negative: the signal); "timeout", "memory" or "output": a limit;
    "stopped": by `Running.stop`; "lost": its supervisor was killed. output: what it printed, printable, its middle
    left out where it was long. leftovers: processes it left behind, all killed. peak_mb: resident set of all, MiB.
    """

    returncode: int | None
    ended: Ended
    output: str
    leftovers: int
    seconds: float
    peak_mb: float


def clean_environment(home: Path, temporary: Path, **more: str) -> dict[str, str]:
    """This process's environment, reduced to what a computation needs; HOME and TMPDIR are the folders given."""
    kept = {k: v for k, v in os.environ.items() if k in _INHERITED or k.startswith(_PREFIXES)}
    if "PYTHONPATH" in kept:  # the command may run in another folder
        kept["PYTHONPATH"] = os.pathsep.join(os.path.abspath(p) for p in kept["PYTHONPATH"].split(os.pathsep) if p)
    return kept | {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"} | more


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
        writable: Iterable[Path] | None = None,
        network: bool = False,
        stdin: Path | None = None,
        keep: Sequence[int] = (),
    ):
        """mark: the beginning of one in the environment, by which a later process finds what this one could not kill.

        writable: where the command may write, for it and all its descendants, on Linux with Landlock; None does not
        confine it. keep: file descriptors it inherits; they are closed here.
        """
        self._mark = f"{mark}/{uuid.uuid4().hex}"
        control, self._control = os.pipe()
        self._result, result = os.pipe()
        command = Command(
            argv=[str(a) for a in argv],
            cwd=str(cwd),
            env=dict(env) | {MARK: self._mark},
            seconds=seconds,
            memory_mb=memory_mb,
            writable=None if writable is None else [str(p) for p in writable],
            network=network,
            stdin=str(stdin or os.devnull),
            keep=list(keep),
        )
        self._started = time.monotonic()
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
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)
        line = b""
        while more := os.read(self._result, 65536):
            line += more
        os.close(self._result)
        result = Result(**json.loads(line)) if line else None
        if result is None:  # somebody killed the supervisor
            kill_all(lambda: marked(self._mark))
        if self._control is not None:
            os.close(self._control)
            self._control = None
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        ended: Ended = "output" if self._too_much else result.ended if result else "lost"
        self._outcome = Outcome(
            returncode=result.returncode if result else None,
            ended=ended,
            output=self._text(),
            leftovers=result.leftovers if result else 0,
            seconds=result.seconds if result else time.monotonic() - self._started,
            peak_mb=result.peak_mb if result else 0.0,
        )
        return self._outcome

    def _send(self, data: bytes) -> None:
        while data and self._control is not None:
            data = data[os.write(self._control, data) :]

    def _read(self) -> None:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        kept = 0
        while True:
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


def temporary_folder(parent: Path, name: str) -> Path:
    """A new folder beneath `parent`, for HOME or TMPDIR of a command."""
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
