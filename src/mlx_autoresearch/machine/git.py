"""Git, called so that neither the user's settings nor a hook decides what it does."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mlx_autoresearch.errors import UserError

_AUTHOR = {"NAME": "mlx-autoresearch", "EMAIL": "research@localhost"}
_IDENTITY = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in _AUTHOR.items()}
_SETTINGS = {
    "core.hooksPath": os.devnull,
    "commit.gpgSign": "false",
    "core.fsmonitor": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
}
# For a repository's objects and refs: what the repository's own settings may say otherwise.
_PLUMBING = _SETTINGS | {
    "core.attributesFile": os.devnull,
    "core.excludesFile": os.devnull,
    "core.autocrlf": "false",
    "core.safecrlf": "false",
    "core.sparseCheckout": "false",
    "core.splitIndex": "false",  # a shared index would be written into the user's .git
    "i18n.commitEncoding": "UTF-8",
}
_WITHOUT_SETTINGS = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",  # from git 2.45 on; before that no fetch finds a protocol that is allowed
    "GIT_ALLOW_PROTOCOL": "none",
}


def git(arguments: Sequence[str], folder: Path) -> str:
    """What git prints when called in `folder`, a checkout, with the settings by which the user has made it.

    Runs no hook and no file system monitor. Raises UserError, with git's first line, when it fails.
    """
    done = output(["git", "-C", str(folder), *_given(_SETTINGS), *arguments], environment(GIT_OPTIONAL_LOCKS="0"))
    return done.decode(errors="surrogateescape")


def plumbing(arguments: Sequence[str], git_dir: Path) -> list[str]:
    """The command line of git on a repository's objects, refs and index: no work tree, no hook, filter or attribute.

    To be run in the environment that `without_settings` gives.
    """
    where = ["-C", str(git_dir), f"--git-dir={git_dir}", f"--work-tree={git_dir}"]  # or core.worktree would be one
    return ["git", *where, *_given(_PLUMBING), *arguments]


def without_settings(**more: str) -> dict[str, str]:
    """`environment`, in which git reads no settings but the repository's own, and fetches nothing."""
    return environment(**_WITHOUT_SETTINGS | more)


def environment(**more: str) -> dict[str, str]:
    """This process's environment without git's variables, and with our identity."""
    return {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | _IDENTITY | more


def output(command: list[str], environment: dict[str, str], stdin: bytes = b"") -> bytes:
    """What a git command prints. Raises UserError, with git's first line, when it fails."""
    done = attempt(command, environment, stdin)
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


def beginning(command: list[str], environment: dict[str, str], most: int) -> bytes:
    """At most `most` bytes of what a git command prints, which is killed where it has more. Raises UserError."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
        process_group=0,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        printed = process.stdout.read(most)
        if len(printed) == most:
            process.kill()
    if process.returncode and len(printed) < most:
        raise UserError(f"git {' '.join(command[-3:])}: exit code {process.returncode}")
    return printed


def complaint(done: subprocess.CompletedProcess[bytes]) -> str:
    """The first line that a failed git wrote to standard error; the others are general advice."""
    return done.stderr.decode(errors="replace").strip().split("\n")[0]


def _given(settings: dict[str, str]) -> list[str]:
    return [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
