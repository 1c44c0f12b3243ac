"""What an experiment may change, and whether something else has changed meanwhile."""

from __future__ import annotations

import hashlib
from fnmatch import fnmatchcase
from pathlib import Path

from mlx_autoresearch import __file__ as _init
from mlx_autoresearch.config.load import settings_of, validate_config
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.config.yaml_text import parse_yaml
from mlx_autoresearch.data.prepared import PreparedData
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels.registry import kernel_folder
from mlx_autoresearch.machine.git import git
from mlx_autoresearch.trials.overlay import KERNELS, PACKAGE, RECIPE

from ..workspace import EXPERIMENT, Change, Workspace
from .scan import scan

EDITABLE = (EXPERIMENT, f"src/{PACKAGE}/{RECIPE}/**", f"{KERNELS}/**")
FROZEN_SECTIONS = ("data", "evaluate")
FROZEN_KEYS = ("train.time_budget", "train.max_steps", "train.checkpoint_every")  # and train.seed, which is put back
_INSTALLED = Path(_init).resolve().parent
_REGULAR = ("100644", "100755", "000000")  # the last one: deleted


def is_editable(path: str) -> bool:
    """Whether an experiment may change this file of the repository.

    Never git's own files: a .gitattributes would let `git archive` write other code than the commit's.
    """
    if any(part.lower().startswith(".git") for part in path.split("/")):
        return False
    return any(fnmatchcase(path, pattern) for pattern in EDITABLE)


def check_change(workspace: Workspace, change: Change, parent: str, commit: str) -> list[str]:
    """What is wrong with a commit: files out of bounds, links, code that does what it must not; one line each."""
    problems = []
    for path in sorted(change.status):
        if not is_editable(path):
            problems.append(f"{path} may not be changed")
        elif change.modes[path] not in _REGULAR:
            problems.append(f"{path} is not a regular file")
        elif path.endswith(".py") and (new := workspace.read(commit, path)) is not None:
            problems += scan(path, new, workspace.read(parent, path))
    return problems


def read_config(text: bytes | None) -> Config:
    """The configuration in an experiment's YAML, whoever wrote it. Raises UserError with one line."""
    if text is None:
        raise UserError(f"{EXPERIMENT} is gone")
    try:
        values = parse_yaml(text.decode("utf-8"))
    except UnicodeDecodeError:
        raise UserError(f"{EXPERIMENT} is not UTF-8 text") from None
    except ValueError as error:
        raise UserError(f"{EXPERIMENT} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{EXPERIMENT} must be a mapping of sections")
    return validate_config(values, EXPERIMENT)


def check_frozen(config: Config, start: Config) -> list[str]:
    """Frozen keys that differ from the starting point's."""
    old, new = settings_of(start), settings_of(config)
    return [
        f"{key} may not be changed: it is {old.get(key)!r}, got {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and (key.split(".")[0] in FROZEN_SECTIONS or key in FROZEN_KEYS)
    ]


def is_installed(snapshot: Path) -> bool:
    """Whether the editable code in `snapshot` is, byte for byte, the installed one."""
    folders = {snapshot / "src" / PACKAGE / RECIPE: _INSTALLED / RECIPE, snapshot / KERNELS: kernel_folder()}
    for theirs, ours in folders.items():
        for name in {p.relative_to(root) for root in (theirs, ours) for p in root.rglob("*") if _is_code(p)}:
            a, b = theirs / name, ours / name
            if not (a.is_file() and b.is_file() and a.read_bytes() == b.read_bytes()):
                return False
    return True


def trusted_files() -> dict[str, str]:
    """SHA-256 of every installed module that an experiment may not change, by its path in the package."""
    paths = (p for p in sorted(_INSTALLED.rglob("*.py")) if p.relative_to(_INSTALLED).parts[0] != RECIPE)
    return {str(p.relative_to(_INSTALLED)): _sha256(p) for p in paths}


def metric_files(data: PreparedData) -> dict[str, str]:
    """SHA-256 of what the metric is measured on: the validation tokens and the tokenizer."""
    names = [*data.manifest.files, *data.manifest.splits["val"].files]
    return {str(data.path / name): _sha256(data.path / name) for name in names}


def checkout_state(repository: Path, tag: str) -> dict[str, str]:
    """The user's checkout: HEAD, branches and tags, settings, what differs from HEAD; this research's own left out."""
    refs = git(["for-each-ref", "--format=%(refname) %(objectname)"], repository).splitlines()
    own = (f"refs/heads/research/{tag} ", f"refs/research/{tag}/")
    state = dict(line.split(" ", 1) for line in refs if not line.startswith(own))
    state["HEAD"] = git(["rev-parse", "--symbolic-full-name", "HEAD"], repository)
    state["git settings"] = git(["config", "--local", "--list"], repository)
    for line in git(["status", "--porcelain", "-z", "--no-renames"], repository).split("\0"):
        if line:
            path = repository / line[3:]
            state[line[3:]] = line[:2] + (_sha256(path) if path.is_file() else "")
    return state


def tree_hash(folder: Path) -> str:
    """One hash over all files of a folder."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return hashlib.sha256("".join(f"{p} {_sha256(p)}\n" for p in files).encode()).hexdigest()


def _is_code(path: Path) -> bool:
    return path.is_file() and path.suffix not in (".md", ".pyc")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
