"""Python runs this at its start, where this folder is on PYTHONPATH: the process is then on a simulated Mac."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.append(str(Path(__file__).parents[4]))  # for tests.support.mac.models; last, so that nothing is hidden by it

from mlx_autoresearch.machine import system
from tests.support.mac import file_control, processes

_LINUX_ONLY = (
    *("sched_getaffinity", "sched_setaffinity", "pipe2", "memfd_create", "pidfd_open", "posix_fadvise", "fdatasync"),
    *("getrandom", "eventfd", "O_PATH", "unshare", "setns"),
)


def _no_proc(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: there is no /proc and no /sys, except for psutil, which has other ways on macOS."""
    if event not in ("open", "os.listdir", "os.scandir") or not isinstance(arguments[0], str | bytes | os.PathLike):
        return
    path = os.fsdecode(arguments[0])
    if not path.startswith(("/proc/", "/sys/")) and path not in ("/proc", "/sys"):
        return
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(("psutil", "tests.support.mac")):
            return
        frame = frame.f_back
    raise FileNotFoundError(2, "No such file or directory", path)


def _describe_the_mac(mlx: Any) -> None:
    from tests.support.mac.models import DEFAULT, MODELS

    mac = MODELS[os.environ.get("SIMULATED_MAC", DEFAULT)]
    mlx.device_info = lambda *_: mac.device_info()  # arithmetic stays on this machine's CPU


def _hide_environments(psutil: Any) -> None:
    psutil.Process.environ = processes.hide_environments(psutil)
    processes.load_libproc()


_PATCHED = {"mlx.core": _describe_the_mac, "psutil": _hide_environments}  # once they are loaded


class _Finder(importlib.machinery.PathFinder):
    """Finds these modules as always, and patches them when they are loaded."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _PATCHED:
            return None
        spec = super().find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_patch(module: ModuleType) -> None:
            execute(module)
            _PATCHED[fullname](module)

        spec.loader.exec_module = execute_and_patch  # type: ignore[method-assign]
        return spec


system.name = lambda: "darwin"
system.processor = lambda: "arm64"
for name in _LINUX_ONLY:
    if hasattr(os, name):
        delattr(os, name)
file_control.install()
sys.addaudithook(_no_proc)
sys.meta_path.insert(0, _Finder)
