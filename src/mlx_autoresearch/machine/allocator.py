"""Makes glibc keep freed memory for the next array instead of returning it to the kernel.

glibc maps every block above 32 MiB anew and unmaps it when freed, so MLX's CPU backend, which allocates an array per
operation, spends more time in page faults than in arithmetic: a 134 MB result costs 30,000 of them.

For training alone: threads that share one arena wait for each other, in a tokenizer's training most of the time.
"""

from __future__ import annotations

import ctypes
import platform

from . import system

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # <malloc.h>


def keep_freed_memory() -> bool:
    """One arena, no mapped blocks, no trimming; True where that took effect (glibc). The process keeps its peak."""
    if not system.is_linux() or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {_M_ARENA_MAX: 1, _M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1}
    taken = [mallopt(name, value) == 1 for name, value in settings.items()]
    return all(taken)
