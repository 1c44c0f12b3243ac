"""Git, called so that neither the user's settings nor a hook decides what it does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from mlx_autoresearch.errors import UserError

_AUTHOR = {"NAME": "mlx-autoresearch", "EMAIL": "research@localhost"}
_IDENTITY = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in _AUTHOR.items()}
_SETTINGS = {
    "core.hooksPath": os.devnull,
    "commit.gpgSign": "false",
    "core.fsmonitor": "false",
    "gc.auto": "0",
    "worktree.useRelativePaths": "false",
}


def git(arguments: list[str], folder: Path) -> str:
    """What git prints when called in `folder`. Raises UserError, with git's first line, when it fails."""
    return run(command(arguments, folder), environment())


def command(arguments: list[str], folder: Path) -> list[str]:
    """The command line of git in `folder` with our settings."""
    settings = [part for key, value in _SETTINGS.items() for part in ("-c", f"{key}={value}")]
    return ["git", "-C", str(folder), *settings, *arguments]


def environment(**more: str) -> dict[str, str]:
    """This process's environment without git's variables, and with our identity."""
    return {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | _IDENTITY | more


def run(command: list[str], environment: dict[str, str]) -> str:
    """What a git command prints. Raises UserError, with git's first line, when it fails."""
    return output(command, environment).decode(errors="surrogateescape")


def output(command: list[str], environment: dict[str, str]) -> bytes:
    """As `run`, for output that is no text."""
    done = attempt(command, environment)
    if done.returncode:
        raise UserError(f"git {' '.join(command[-3:])}: {complaint(done)}")
    return done.stdout


def attempt(command: list[str], environment: dict[str, str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """A git command that may fail. Raises UserError where there is no git, or none that can be run."""
    try:
        # In a group of its own, so that the terminal's Ctrl-C is ours alone.
        return subprocess.run(command, input=stdin, capture_output=True, check=False, env=environment, process_group=0)
    except FileNotFoundError:
        raise UserError("git is not installed, or not on PATH") from None
    except OSError as error:
        raise UserError(f"git cannot be run: {error.strerror}") from None


def complaint(done: subprocess.CompletedProcess[bytes]) -> str:
    """The first line that a failed git wrote to standard error; the others are general advice."""
    return done.stderr.decode(errors="replace").strip().split("\n")[0]
