"""Integrity: what results depend on stays as it was, and untrusted code changes nothing but what is its own."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from mlx_autoresearch import __file__ as _init
from mlx_autoresearch.config.keys import differing
from mlx_autoresearch.data.prepared import PreparedData
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels.registry import kernel_folder
from mlx_autoresearch.ledger.files import STARTED_WITH, TRUSTED, experiments_folder
from mlx_autoresearch.machine.compiled import kept_files
from mlx_autoresearch.machine.files import is_hidden, write_atomically
from mlx_autoresearch.sandbox import landlock
from mlx_autoresearch.training.data import find_data
from mlx_autoresearch.trials.overlay import KERNELS, PACKAGE, RECIPE

from ..home import Search
from ..settings import SearchConfig
from .checkout import checkout_state, identity

_INSTALLED = Path(_init).resolve().parent


# What we get for a file of ours where something else lies in its place.
_IN_ITS_PLACE = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)


class Trespass(Exception):
    """Something outside changed while untrusted code ran; the message is the name of the first thing."""


# What results depend on: compared with the search's start before and after every experiment.


def check_since_start(search: Search) -> dict[str, str]:
    """The trusted state now, which is that of the search's start. Raises UserError when it has changed since.

    A search without results writes it down, beside the settings of its start.
    """
    now = trusted_state(search.config)
    path = search.home / TRUSTED
    if search.ledger.records():
        try:
            before = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path} cannot be read ({error}): restore it, or start a new search") from None
        before.pop(STARTED_WITH, None)
        check_same(before, now)
    else:
        settings = search.config.model_dump(mode="json")
        write_atomically(path, json.dumps({STARTED_WITH: settings, **now}, indent=2) + "\n")
    return now


def check_same(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Raise UserError when two trusted states differ."""
    names = differing(before, after)
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise UserError(
            f"what results depend on has changed since the start ({names[0]}{more}): they would not be comparable; "
            "restore it and resume, or start a new search"
        )


def trusted_state(config: SearchConfig) -> dict[str, str]:
    """SHA-256 of what every result depends on: the installed code that may not change, and the metric's data."""
    return trusted_files() | metric_files(find_data(config.start))


def trusted_files() -> dict[str, str]:
    """SHA-256 of every installed file that an experiment may not change, by its path in the package.

    Not only of modules: the headers that kernels are translated with decide results, too. Without what Python itself
    writes in __pycache__; a compiled module elsewhere would be imported like any other.
    """
    files = (p for p in sorted(_INSTALLED.rglob("*")) if p.is_file() and p.parent.name != "__pycache__")
    names = (p.relative_to(_INSTALLED) for p in files if not is_hidden(p, _INSTALLED))
    return {str(name): _sha256(_INSTALLED / name) for name in names if name.parts[0] not in (RECIPE, KERNELS)}


def metric_files(data: PreparedData) -> dict[str, str]:
    """SHA-256 of what the metric is measured on: all held-out tokens and the tokenizer."""
    held_out = [split.files for part, split in data.manifest.splits.items() if part != "train"]
    names = [*data.manifest.files, *chain.from_iterable(held_out)]
    return {str(data.path / name): _sha256(data.path / name) for name in names}


# What untrusted code must leave alone: compared before and after it runs.


@contextmanager
def watched(search: Search, own: Path, code: Path | None = None) -> Iterator[None]:
    """While untrusted code runs inside: whatever came of it, compare afterwards, and put the search's files back.

    own: the experiment's folder, where it may write. code: the snapshot that it runs, if any. Without Landlock, other
    experiments' folders and the user's checkout are compared, too; a user who works there meanwhile costs the
    experiment. Under sandbox-exec, too: that it holds was not shown on a Mac. Raises Trespass when something has
    changed, also where the code raised; UserError when git can no longer say. Where the process is stopped
    (KeyboardInterrupt), the search's files are put back and nothing is compared.
    """
    before = _surroundings(search, own, code)
    search.untrusted_code_ran = True
    failure: Exception | None = None
    try:
        with _no_bytecode():
            yield
    except Exception as error:
        failure = error
    except BaseException:
        search.restore()
        raise
    changed = [*search.restore(), *differing(before, _surroundings(search, own, code))]
    if changed:
        raise Trespass(changed[0]) from failure
    if isinstance(failure, _IN_ITS_PLACE) and not landlock.version():
        name = Path(failure.filename).name if isinstance(failure.filename, str) else "a file"
        raise Trespass(name) from failure
    if failure is not None:
        raise failure


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Meanwhile this process writes no .pyc, so that every new one was planted."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _surroundings(search: Search, own: Path, code: Path | None) -> dict[str, str]:
    state = {"the code that it runs": _tree_hash(code)} if code else {}
    if not landlock.version():  # where there is, it keeps all else as it is
        state |= _experiments(search.home, own)
        state |= checkout_state(search.repository, search.home, search.config.tag)
        state |= {str(path): identity(path) for path in (*_INSTALLED.rglob("*.pyc"), *kept_files())}
    return state


def _experiments(home: Path, own: Path) -> dict[str, str]:
    """Every file and folder of other experiments, with what differs once it has been changed or replaced.

    Of the own one, only the folder itself.
    """
    top = experiments_folder(home)
    state = {str(path.relative_to(home)): identity(path, content=False) for path in (top, own)}
    for folder, folders, files in os.walk(top):
        if Path(folder) == top:
            folders[:] = [name for name in folders if top / name != own]
        for name in (*folders, *files):
            path = Path(folder, name)
            state[str(path.relative_to(home))] = identity(path, content=name in files)
    return state


# Code: which one a commit holds.


def is_installed(snapshot: Path) -> bool:
    """Whether the editable code in `snapshot` is, byte for byte but for line ends, the installed one."""
    return code_hash(snapshot) == installed_code_hash()


def code_hash(snapshot: Path) -> str:
    """One hash over the editable code in a snapshot of the repository."""
    return _code_hash(snapshot / "src" / PACKAGE / RECIPE, snapshot / KERNELS)


def installed_code_hash() -> str:
    """`code_hash` of the installed code."""
    return _code_hash(_INSTALLED / RECIPE, kernel_folder())


def _code_hash(*folders: Path) -> str:
    """Line ends do not count: with core.autocrlf those of the user's checkout differ from the commit's."""
    lines = []
    for number, folder in enumerate(folders):
        files = (p for p in folder.rglob("*") if p.is_file() and not is_hidden(p, folder))
        code = (p for p in files if p.suffix not in (".md", ".pyc"))
        lines += [f"{number} {path.relative_to(folder)} {_sha256(path, line_ends=False)}" for path in sorted(code)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _tree_hash(folder: Path) -> str:
    """One hash over all files of a folder."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return hashlib.sha256("".join(f"{p} {_sha256(p)}\n" for p in files).encode()).hexdigest()


def _sha256(path: Path, *, line_ends: bool = True) -> str:
    """line_ends: whether CR LF is something else than LF."""
    try:
        with path.open("rb") as file:
            if line_ends:
                return hashlib.file_digest(file, "sha256").hexdigest()
            return hashlib.sha256(file.read().replace(b"\r\n", b"\n")).hexdigest()
    except OSError as error:  # untrusted code may have made it so
        return f"unreadable: {error.strerror}"
