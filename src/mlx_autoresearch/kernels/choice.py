"""Which implementation an operation uses: the one remembered for its shapes on this machine, or the best, measured.

Measuring takes seconds and prints a line, so only training asks for it, by `measuring()`. Elsewhere, for example when a
text is sampled at ever new lengths, a shape that was never measured is composed of MLX.
"""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx

from mlx_autoresearch.errors import GPUInterrupted
from mlx_autoresearch.machine import device, system
from mlx_autoresearch.machine.files import write_atomically
from mlx_autoresearch.machine.paths import cache_dir

from .alternatives import Alternatives
from .registry import kernel_folder
from .tuning import Measurement, best, measure

FILE = "kernel_choices.json"  # in the cache folder: machine -> shape -> choice
_BEGUN = "the process did not survive it"  # until the measurement is finished

_measuring: ContextVar[bool] = ContextVar("measuring", default=False)


class KernelWarning(UserWarning):
    """A custom kernel failed, or was wrong, on this machine, and is not used."""


@dataclass(frozen=True)
class Choice:
    """The implementation chosen for a shape, and what was measured of each."""

    chosen: str
    measured: dict[str, Measurement]


@contextmanager
def measuring() -> Iterator[None]:
    """Inside, `auto` measures the shapes that it does not know. A training step is computed in here."""
    token = _measuring.set(True)
    try:
        yield
    finally:
        _measuring.reset(token)


def chosen_for(
    operation: Alternatives, arrays: tuple[mx.array, ...], settings: dict, language: Literal["metal", "cuda"]
) -> str:
    """The implementation for such arrays, as `Alternatives.run` takes it.

    Remembered, else measured where that is asked for, else composed MLX.
    """
    choice = _known().get(operation.describe(arrays, settings))
    if choice is None:
        if not _measuring.get():
            return "mlx"
        choice = _measure_and_remember(operation, arrays, settings, language)
    return choice.chosen


def choices() -> dict[str, Choice]:
    """Everything remembered for this device, MLX and these kernels: shape -> choice."""
    return dict(_known())


def forget(shapes: Iterable[str]) -> None:
    """Forget the choices for these shapes, as `choices` names them, on this device with this MLX and these kernels."""
    content = _read()
    for key in shapes:
        _known().pop(key, None)
        content.get(_machine(), {}).pop(key, None)
    _write(content)


@contextmanager
def interruptible() -> Iterator[None]:
    """While another process trains: what it was measuring when an exception here ended it is forgotten afterwards.

    Put it around the block that ends that process. Without it, such a shape would count as one whose kernel ended it.
    """
    before = _unfinished()
    try:
        yield
    except BaseException:
        if begun := _unfinished() - before:
            forget(begun)
        raise


def _unfinished() -> set[str]:
    """The shapes that a process, which may be running, has begun to measure and not finished."""
    begun = set()
    with suppress(AttributeError, KeyError, TypeError):  # not ours
        for key, entry in _read().get(_machine(), {}).items():
            if any(measurement["failure"] == _BEGUN for measurement in entry["measured"].values()):
                begun.add(key)
    return begun


def _measure_and_remember(
    operation: Alternatives, arrays: tuple[mx.array, ...], settings: dict, language: Literal["metal", "cuda"]
) -> Choice:
    """The choice, measured. Says so on standard error: compiling for it may take half a minute."""
    key = operation.describe(arrays, settings)
    print(f"kernels: measuring {key} (once on this machine)", file=sys.stderr, flush=True)

    def before_a_kernel(name: str, measured: dict[str, Measurement]) -> None:
        """A fault on the GPU may end the process; the next one then knows."""
        _remember(key, Choice(best(measured), {**measured, name: Measurement(failure=_BEGUN)}))

    try:
        measured = measure(operation, arrays, settings, language, before_a_kernel)
    except GPUInterrupted as error:
        forget([key])
        raise GPUInterrupted(f"{error}; it was measuring {key}: should that happen again, set kernels=mlx") from None
    except BaseException:  # somebody stopped us
        forget([key])
        raise
    choice = Choice(best(measured), measured)
    used = "MLX" if choice.chosen == "mlx" else choice.chosen
    for name in operation.names(language):
        if failure := measured[name].failure:
            warnings.warn(f"kernels: {operation.name} on {name}: {failure}; {used} is used", KernelWarning, 2)
    _remember(key, choice)
    return choice


def _machine() -> str:
    """What a choice holds for: the device, MLX's version, the kernels' sources, and macOS, which compiles Metal."""
    macos = system.macos_version()
    compiler = f", macOS {macos[0]}.{macos[1]} {system.macos_build()}" if macos else ""
    return f"{device.device_name()}, mlx {version('mlx')}{compiler}, kernels {_digest(kernel_folder())}"


@lru_cache
def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("[!.]*")):
        if path.suffix in (".metal", ".h", ".cu", ".cuh", ".yaml"):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _known() -> dict[str, Choice]:
    """This process's copy of what is remembered for this machine."""
    return _load(_file(), _machine())


@lru_cache
def _load(file: Path, machine: str) -> dict[str, Choice]:
    known = {}
    with suppress(AttributeError, KeyError, TypeError):  # not ours
        for key, entry in _read(file).get(machine, {}).items():
            measured = {name: Measurement(**values) for name, values in entry["measured"].items()}
            known[key] = Choice(entry["chosen"], measured)
    return known


def _remember(key: str, choice: Choice) -> None:
    _known()[key] = choice
    entries = {key: asdict(choice) for key, choice in _known().items()}
    others = _read()
    _write(others | {_machine(): others.get(_machine(), {}) | entries})


def _file() -> Path:
    return cache_dir() / FILE


def _read(file: Path | None = None) -> dict[str, Any]:
    try:
        content = json.loads((file or _file()).read_text())
    except (OSError, ValueError):  # not there, or not ours
        return {}
    return content if isinstance(content, dict) else {}


def _write(content: dict[str, Any]) -> None:
    """Replaces the file; where nothing can be written, nothing is."""
    with suppress(OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        write_atomically(_file(), json.dumps(content, indent=2) + "\n")
