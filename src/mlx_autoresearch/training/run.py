"""A run is a folder: resolved configuration, versions, metrics, checkpoint, summary. A run resumes from its folder."""

from __future__ import annotations

import difflib
import json
import platform
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_autoresearch.config.load import load_config
from mlx_autoresearch.config.settings import Config, Section
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.machine.device import device_name
from mlx_autoresearch.machine.files import replacing
from mlx_autoresearch.machine.versions import git_commit, package_versions, python_version
from mlx_autoresearch.methods import CURRENT, FIRST, Methods

from .files import CHECKPOINT, CONFIG, INFO, METRICS, SUMMARY

_LOSS_SCALE = "optimizer.loss_scale."  # names of arrays
_REMEDY = "free some space, make it writable or choose another folder"


class Stateful(Protocol):
    """An optimizer, as far as a checkpoint is concerned."""

    state: dict[str, Any]  # of arrays, by section and name


@dataclass(frozen=True)
class Run:
    """One run's folder. Every write raises UserError, in one line, when the disk is full or not writable."""

    path: Path

    def __post_init__(self) -> None:
        try:
            str(self.path).encode()
        except UnicodeEncodeError:  # MLX could not write to it, and would say so after the training
            raise UserError(f"{self.path}: the name of a run folder must be UTF-8; choose another") from None

    @classmethod
    def create(cls, config: Config, root: Path, name: str, info: dict[str, Any]) -> Run:
        """A new folder under `root`, named by time and `name`, with the configuration and `info` in it.

        info: the entry "data" of run.json; device, versions and command are added.
        """
        stamp = time.strftime("%Y%m%d-%H%M%S")
        attempt = 0
        while True:
            try:
                return cls.create_at(root / (f"{stamp}-{name}" + (f"-{attempt}" if attempt else "")), config, info)
            except FileExistsError:
                attempt += 1

    @classmethod
    def create_at(cls, path: Path, config: Config, info: dict[str, Any]) -> Run:
        """A new folder of exactly this name. Raises FileExistsError when there is one."""
        run = cls(path)
        with _user_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        with _user_errors(path.parent, but=FileExistsError):
            path.mkdir()
        run.save_config(config)
        run._write(INFO, json.dumps(info | _made_by(), indent=2) + "\n")
        return run

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """An existing run. Raises UserError when the folder is not one."""
        run = cls(Path(path))
        if not (run.path / CONFIG).is_file():
            near = _nearest_run(run.path)
            hint = f"did you mean {near}?" if near else "`mlx-autoresearch train` makes one under runs/"
            raise UserError(f"{path} is not a run folder; {hint}")
        return run

    def config(self, overrides: Iterable[str] = ()) -> Config:
        """The resolved configuration the run was started with, and `overrides` over it."""
        config = load_config(self.path / CONFIG, overrides)
        sections = {name for name in Config.model_fields if isinstance(getattr(config, name), Section)}
        if missing := sections - config.model_fields_set:  # or the defaults would stand in for it
            raise _damaged(self.path / CONFIG, f"it has no section {', '.join(sorted(missing))}")
        return config

    def save_config(self, config: Config) -> None:
        """Write config.yaml."""
        self._write(CONFIG, config.to_yaml())

    def info(self) -> dict[str, Any]:
        """What was recorded at the start: data, device, versions. Raises UserError when it is damaged."""
        try:
            info = json.loads((self.path / INFO).read_text(encoding="utf-8"))
        except OSError as error:
            raise _damaged(self.path / INFO, error.strerror) from None
        except ValueError as error:
            raise _damaged(self.path / INFO, str(error)) from None
        if not isinstance(info, dict) or not isinstance(info.get("data"), dict):
            raise _damaged(self.path / INFO, "it does not say which data the run was started with")
        return info

    def methods(self) -> Methods:
        """By which it is measured and packed. Raises UserError when its information is damaged."""
        try:
            recorded = self.info().get("methods")
            return FIRST if recorded is None else Methods(**recorded)
        except TypeError as error:
            raise _damaged(self.path / INFO, str(error)) from None

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        with _user_errors(self.path), (self.path / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All logged records; a torn line, as a power cut or a full disk leaves it, is skipped."""
        try:
            lines = (self.path / METRICS).read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"cannot read {self.path / METRICS}: {error.strerror}") from None
        records = []
        for line in lines:
            with suppress(ValueError):
                records.append(json.loads(line))
        return [r for r in records if isinstance(r, dict) and isinstance(r.get("step"), int)]

    def truncate_metrics(self, step: int) -> None:
        """Forget records after `step`, which a resumed run will write again."""
        kept = [r for r in self.metrics() if r["step"] <= step]
        self._write(METRICS, "".join(json.dumps(r) + "\n" for r in kept))

    def save_summary(self, summary: dict[str, Any]) -> None:
        """Write summary.json."""
        self._write(SUMMARY, json.dumps(summary, indent=2) + "\n")

    def save_checkpoint(self, model: nn.Module, optimizer: Stateful, state: dict[str, Any]) -> None:
        """Write weights, optimizer state and `state` (JSON-able) to one file, atomically."""
        arrays = _arrays(model, optimizer)
        with self._replacing(CHECKPOINT) as path:
            mx.save_safetensors(str(path), arrays, {"state": json.dumps(state)})

    def load_checkpoint(self, model: nn.Module, optimizer: Stateful | None = None) -> dict[str, Any]:
        """Restore weights (and the optimizer's state) in place; returns the saved `state`. Raises UserError."""
        path = self.path / CHECKPOINT
        if not path.is_file():
            raise UserError(f"{self.path} holds no checkpoint: the run ended before its first one; start a new run")
        try:
            loaded: Any = mx.load(str(path), return_metadata=True)
            arrays, metadata = loaded
            state = json.loads(metadata["state"])
        except (RuntimeError, ValueError, KeyError):
            raise _damaged(path, "it is no checkpoint of a run") from None
        expected = {name: array.shape for name, array in _arrays(model, optimizer).items()}
        saved = {name: array.shape for name, array in arrays.items() if optimizer or name.startswith("model.")}
        differing = {name for name, _ in expected.items() ^ saved.items()}
        # Where `compute_dtype: auto` is another precision here than it was there, a loss scale is missing or left over.
        if wrong := sorted(name for name in differing if not name.startswith(_LOSS_SCALE)):
            raise UserError(
                f"{path} is of another model than {self.path / CONFIG}: {wrong[0]} must be "
                f"{expected.get(wrong[0], 'absent')}, got {saved.get(wrong[0], 'none')}"
            )
        model.load_weights([(name.removeprefix("model."), arrays[name]) for name in _arrays(model)])
        if optimizer is not None:
            for section, entries in optimizer.state.items():
                for name, initial in entries.items():
                    entries[name] = arrays.get(f"optimizer.{section}.{name}", initial)
        return state

    def _write(self, name: str, text: str) -> None:
        with self._replacing(name) as path:
            path.write_text(text, encoding="utf-8")

    @contextmanager
    def _replacing(self, name: str) -> Iterator[Path]:
        with _user_errors(self.path), replacing(self.path / name) as new:
            yield new


def _made_by() -> dict[str, Any]:
    return {
        "device": device_name(),
        "command": sys.argv,
        "python": python_version(),
        "platform": platform.platform(),
        "packages": package_versions(),
        "git_commit": git_commit(),
        "methods": asdict(CURRENT),
    }


def _arrays(model: nn.Module, optimizer: Stateful | None = None) -> dict[str, mx.array]:
    """All arrays of a checkpoint by name."""
    tree = {"model": model.parameters()} | ({"optimizer": optimizer.state} if optimizer else {})
    return dict(tree_flatten(tree))  # type: ignore[arg-type]


def _nearest_run(path: Path) -> Path | None:
    """Best guess for a wrong path: the run that holds this file, the newest run in this folder, or the closest name."""
    if (path.parent / CONFIG).is_file():
        return path.parent
    if path.is_dir():
        return max((p.parent for p in path.glob(f"*/{CONFIG}")), default=None)
    near = difflib.get_close_matches(path.name, [p.parent.name for p in path.parent.glob(f"*/{CONFIG}")], n=1)
    return path.parent / near[0] if near else None


def _damaged(path: Path, how: str | None) -> UserError:
    return UserError(f"{path} is damaged ({how}): restore it or start a new run")


@contextmanager
def _user_errors(path: Path, but: type[OSError] | tuple[()] = ()) -> Iterator[None]:
    """Turns failed writes to `path` into UserError; lets `but` pass."""
    try:
        yield
    except but:
        raise
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror or error}; {_REMEDY}") from None
    except RuntimeError as error:  # what mx.save_safetensors raises
        raise UserError(f"cannot write to {path}: {str(error).rstrip('.')}; {_REMEDY}") from None
