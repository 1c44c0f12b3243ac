"""sandbox-exec: a command of macOS gives up, for itself and all its descendants, writing outside some folders.

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
from functools import lru_cache

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.machine import system

SWITCH = "MLX_AUTORESEARCH_SANDBOX_EXEC"  # the environment variable: "off" for no confinement
_PROGRAM = "sandbox-exec"

_PROFILE = """\
(version 1)
(allow default)
(deny file-write*)
(allow file-write-data (subpath "/dev"))
(deny signal)
(allow signal (target self) (target same-sandbox))
"""
# What reaches outside: a second name for a file elsewhere, and services that act for whoever asks. A profile that names
# an operation which this macOS does not have would be refused whole.
_LINK = "(when (defined? 'file-link) (deny file-link){})\n"
_REACHES = ("file-mount", "job-creation", "lsopen", "appleevent-send", "user-preference-write")


def obstacle() -> str | None:
    """Why commands cannot be confined by sandbox-exec here; None where they can."""
    if not system.is_macos():
        return f"{_PROGRAM} is a program of macOS"
    if os.environ.get(SWITCH) == "off":
        return f"{SWITCH} is off"
    program = shutil.which(_PROGRAM)
    return _refusal(program) if program else f"{_PROGRAM} is not installed, or not in PATH"


def command(argv: Sequence[str], writable: Iterable[str], *, network: bool) -> list[str]:
    """`argv` under a sandbox-exec that lets it write to the files and beneath the folders of `writable`.

    Raises OSError for a path that is not there, UserError for one that a profile cannot name.
    """
    program = shutil.which(_PROGRAM)
    assert program, "there is no obstacle"
    paths = {f"WRITABLE_{i}": _as_stored(path) for i, path in enumerate(writable)}
    folders = [name for name, path in paths.items() if os.path.isdir(path)]
    files = [name for name in paths if name not in folders]
    parameters = [word for name, path in paths.items() for word in ("-D", f"{name}={path}")]
    return [program, "-p", profile(folders, files, network=network), *parameters, "--", *argv]


def profile(folders: Sequence[str], files: Sequence[str], *, network: bool) -> str:
    """The text of a profile; folders, files: names of parameters.

    A folder itself cannot be renamed or deleted, nor a file replaced, which is what Landlock allows.
    """
    beneath = [f'(require-all (subpath (param "{n}")) (require-not (literal (param "{n}"))))' for n in folders]
    text = _PROFILE
    text += "".join(f"(allow file-write* {where})\n" for where in beneath)
    text += "".join(f'(allow file-write-data (literal (param "{name}")))\n' for name in files)
    text += _LINK.format("".join(f" (allow file-link {where})" for where in beneath))
    text += "".join(f"(when (defined? '{operation}) (deny {operation}))\n" for operation in _REACHES)
    return text if network else text + "(deny network*)\n"


@lru_cache
def _refusal(program: str) -> str | None:
    """What sandbox-exec says where it refuses our profile: within another sandbox, or on some later macOS."""
    trial = [program, "-p", profile([], [], network=False), "/usr/bin/true"]
    done = subprocess.run(
        trial, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode == 0:
        return None
    return f"{_PROGRAM} fails: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}"


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
