"""How much memory this machine, or the Linux container that this process runs in, may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def usable_memory() -> int:
    """Bytes of RAM, or of the lowest control group limit that applies to this process, where that is lower."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(installed, container_limit() or installed)


def container_limit(proc: Path = Path("/proc/self/cgroup"), mounts: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that this process's control groups allow, versions 1 and 2; None where nothing is limited.

    proc: lists the groups, one `id:controllers:path` a line. mounts: where the hierarchies are mounted. A group may set
    no limit of its own and still be limited by one above it, so every level counts. Source: the kernel's
    Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
    """
    return min(_limits(proc, mounts), default=None)


def _limits(proc: Path, mounts: Path) -> Iterator[int]:
    try:
        lines = proc.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mount, name = mounts, "memory.max"
        elif "memory" in controllers.split(","):
            mount, name = mounts / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = Path(path.lstrip("/"))
        if ".." in group.parts:  # outside this container's namespace, which sees nothing of it
            group = Path()
        for level in (group, *group.parents):
            # Without a namespace the mount's root may be the container's own group: then lower levels are missing.
            with suppress(OSError, ValueError):  # ValueError: "max"
                yield int((mount / level / name).read_text())
