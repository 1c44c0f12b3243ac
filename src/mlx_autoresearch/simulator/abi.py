"""Python's side of runtime/abi.h."""

from __future__ import annotations

import ctypes
import threading
from functools import cache
from pathlib import Path

from .build import build_runtime
from .compilers import Compiler

MAX_FINDINGS = 64


class FindingRecord(ctypes.Structure):
    """`MslFinding` of runtime/abi.h: one error, where it is and which thread made it."""

    _fields_ = [
        ("kind", ctypes.c_char * 40),
        ("message", ctypes.c_char * 280),
        ("file", ctypes.c_char * 120),
        ("address", ctypes.c_void_p),
        ("line", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("thread", ctypes.c_uint32 * 3),
        ("threadgroup", ctypes.c_uint32 * 3),
    ]


class Buffer(ctypes.Structure):
    """`MslBuffer` of runtime/abi.h: the memory of one input or output."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("bytes", ctypes.c_size_t),
        ("first", ctypes.c_size_t),
        ("name", ctypes.c_char_p),
        ("element_bytes", ctypes.c_int),
        ("flags", ctypes.c_int),
    ]


IS_OUTPUT, IS_INITIALISED = 1, 2


class Launch(ctypes.Structure):
    """`MslLaunch` of runtime/abi.h: one launch, what it is given and what it counts."""

    _fields_ = [
        ("entry", ctypes.c_void_p),
        ("buffers", ctypes.POINTER(Buffer)),
        ("n_buffers", ctypes.c_int),
        ("grid", ctypes.c_uint32 * 3),
        ("threadgroup", ctypes.c_uint32 * 3),
        ("order", ctypes.c_int),
        ("checked", ctypes.c_int),
        ("allow_unwritten", ctypes.c_int),
        ("seconds", ctypes.c_double),
        ("findings", ctypes.POINTER(FindingRecord)),
        ("max_findings", ctypes.c_int),
        ("n_findings", ctypes.c_int),
        ("threadgroup_bytes", ctypes.c_size_t),
        ("switches", ctypes.c_uint64),
        ("accesses", ctypes.c_uint64),
        ("collectives", ctypes.c_uint64),
        ("counters", ctypes.POINTER(ctypes.c_uint64)),
        ("n_counters", ctypes.c_uint32),
    ]


# The runtime simulates one machine: one launch at a time.
_lock = threading.Lock()
_runtime: ctypes.CDLL | None = None


def load_runtime(compiler: Compiler, portable_fibers: bool = False) -> None:
    """Loads the runtime, whose functions every kernel library then finds. The first call decides for the process."""
    global _runtime
    with _lock:
        if _runtime is None:
            runtime = ctypes.CDLL(str(build_runtime(compiler, portable_fibers)), mode=ctypes.RTLD_GLOBAL)
            runtime.msl_launch.argtypes = [ctypes.POINTER(Launch)]
            _runtime = runtime


@cache
def load_entry(library: Path) -> int:
    """The address of a kernel's entry point. Libraries stay loaded."""
    entry = ctypes.CDLL(str(library)).msl_entry
    return ctypes.cast(entry, ctypes.c_void_p).value or 0


def run_launch(launch: Launch) -> None:
    """Run one launch to its end; its findings and counts are then in `launch`."""
    assert _runtime is not None, "load_runtime comes first"
    with _lock:
        _runtime.msl_launch(ctypes.byref(launch))
