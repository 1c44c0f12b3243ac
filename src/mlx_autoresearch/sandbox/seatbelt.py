"""sandbox-exec: a command of macOS gives up, for itself and all its descendants, files outside some folders.

It takes a profile in SBPL, a dialect of Scheme in which the last rule that matches decides. Apple documents neither
and calls sandbox-exec deprecated. The forms used here are those that Bazel, Chromium, WebKit and Codex use. Paths are
parameters (-D) of the profile, never part of its text, so no name can change what it says.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.machine import system

SWITCH = "MLX_AUTORESEARCH_SANDBOX_EXEC"  # the environment variable: "off" for no confinement
_PROGRAM = "sandbox-exec"

_PROFILE = """\
(version 1)
(allow default)
(deny file-read*)
(allow file-read-metadata)
(allow file-read* (literal "/"))
(deny file-write*)
(deny signal)
(allow signal (target self) (target same-sandbox))
(when (defined? 'process-info*) (deny process-info*) (allow process-info* (target self) (target same-sandbox)))
"""
# What reaches outside: a second name for a file elsewhere, and services that act for whoever asks. A profile that names
# an operation which this macOS does not have would be refused whole.
_LINK = "(when (defined? 'file-link) (deny file-link){})\n"
# Shared memory outlives a process, and the next one could read it.
_REACHES = (
    *("file-mount", "ipc-sysv*", "ipc-posix-shm-write-create"),
    *("job-creation", "lsopen", "appleevent-send", "user-preference-write"),
)


def obstacle() -> str | None:
    """Why commands cannot be confined by sandbox-exec here; None where they can."""
    if not system.is_macos():
        return f"{_PROGRAM} is a program of macOS"
    if os.environ.get(SWITCH) == "off":
        return f"{SWITCH} is off"
    program = shutil.which(_PROGRAM)
    return _refusal(program) if program else f"{_PROGRAM} is not installed, or not in PATH"


def command(
    argv: Sequence[str],
    *,
    readable: Iterable[str],
    listed: Iterable[str],
    writable: Iterable[str],
    devices: Iterable[str],
    network: bool,
) -> list[str]:
    """`argv` under a sandbox-exec; what it may do is told as to `landlock.confine`.

    Raises OSError for a writable path that is not there, UserError for one that a profile cannot name.
    """
    program = shutil.which(_PROGRAM)
    assert program, "there is no obstacle"
    writes = {_as_stored(path): os.path.isdir(path) for path in writable}
    rules = Rules(
        readable=_named("READABLE", _those_there(readable)),
        listed=_named("LISTED", _those_there(listed)),
        folders=_named("WRITABLE", [path for path, is_folder in writes.items() if is_folder]),
        files=_named("FILE", [path for path, is_folder in writes.items() if not is_folder]),
        devices=_named("DEVICE", _those_there(devices)),
    )
    given = rules.readable | rules.listed | rules.folders | rules.files | rules.devices
    parameters = [word for name, path in given.items() for word in ("-D", f"{name}={path}")]
    return [program, "-p", profile(rules, network=network), *parameters, "--", *argv]


@dataclass(frozen=True)
class Rules:
    """Parameters of a profile: their names, and the paths that they stand for."""

    readable: dict[str, str] = field(default_factory=dict)
    listed: dict[str, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    devices: dict[str, str] = field(default_factory=dict)


def profile(rules: Rules, *, network: bool) -> str:
    """The text of a profile.

    A folder itself cannot be renamed or deleted, nor a file replaced, which is what Landlock allows.
    """
    beneath = [f'(require-all (subpath (param "{n}")) (require-not (literal (param "{n}"))))' for n in rules.folders]
    text = _PROFILE
    text += "".join(f'(allow file-read-data (literal (param "{name}")))\n' for name in rules.listed)
    text += "".join(f'(allow file-read* (subpath (param "{name}")))\n' for name in (*rules.readable, *rules.folders))
    text += "".join(f"(allow file-write* {where})\n" for where in beneath)
    for name in (*rules.files, *rules.devices):
        text += f'(allow file-read* (literal (param "{name}")))\n(allow file-write-data (literal (param "{name}")))\n'
    text += _LINK.format("".join(f" (allow file-link {where})" for where in beneath))
    text += "".join(f"(when (defined? '{operation}) (deny {operation}))\n" for operation in _REACHES)
    return text if network else text + "(deny network*)\n"


def _named(kind: str, paths: Sequence[str]) -> dict[str, str]:
    return {f"{kind}_{i}": path for i, path in enumerate(paths)}


@lru_cache
def _refusal(program: str) -> str | None:
    """What sandbox-exec says where it refuses our profile: within another sandbox, or on some later macOS."""
    everything = Rules(readable={"READABLE": "/"})
    trial = [program, "-p", profile(everything, network=False), "-D", "READABLE=/", "--", "/usr/bin/true"]
    done = subprocess.run(
        trial, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode == 0:
        return None
    return f"{_PROGRAM} fails: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}"


def _those_there(paths: Iterable[str]) -> list[str]:
    """As stored, but those that are not there, cannot be opened or have no name that a profile can hold."""
    found = []
    for path in paths:
        with suppress(OSError, UserError):
            found.append(_as_stored(path))
    return found


def _as_stored(path: str) -> str:
    """A path without links, and in the letters that the file system keeps, whatever case the user wrote it in.

    The profile's paths are compared with these. Raises UserError for a name that is no text.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        ask = fcntl.F_GETPATH  # type: ignore[attr-defined]  # macOS's alone
        found = os.fsdecode(fcntl.fcntl(descriptor, ask, bytes(1024)).rstrip(b"\0"))
    finally:
        os.close(descriptor)
    try:
        found.encode()
    except UnicodeEncodeError:
        raise UserError(f"{path!a} cannot be made writable: its name is not UTF-8; rename it") from None
    return found
