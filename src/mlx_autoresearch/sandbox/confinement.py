"""What a confined command may do: one description, which the kernel enforces on Linux and sandbox-exec on macOS."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mlx_autoresearch.machine import system

from . import capabilities, landlock, mounts, seatbelt, seccomp

OWN_THREADS = "/proc/self/task"  # CUDA gives its threads names, which is written there, and does not start otherwise


@dataclass(frozen=True)
class Confinement:
    """What a command and all its descendants may do. They may send no signals to other processes.

    readable: files, and folders for what is beneath them; what is not there is left out. listed: folders of which they
    may list names, all the way down. writable: files and folders, to be read, too. devices: files of /dev.
    network: whether they may use it. `confinement` makes one from what must stay closed.
    """

    readable: list[str]
    listed: list[str]
    writable: list[str]
    devices: list[str]
    network: bool

    def around(self, argv: Sequence[str]) -> list[str]:
        """`argv`, started by sandbox-exec on macOS. Raises what `seatbelt.command` raises."""
        return list(argv) if seatbelt.obstacle() is not None else seatbelt.command(argv, **asdict(self))

    def enter(self, *, attributes: bool) -> None:
        """Confine this process, on Linux. Raises OSError when the kernel refuses.

        attributes: whether it may change mode, owner, times and attributes of files, where mounts allow it.
        """
        if not landlock.version():
            return
        capabilities.give_up()
        own = replace(self, readable=[*self.readable, "/proc/self"], devices=[*self.devices, OWN_THREADS])
        landlock.confine(**asdict(own))
        if seccomp.obstacle() is None:
            seccomp.confine(network=self.network, attributes=attributes)


def confinement(
    *,
    readable: Iterable[str | os.PathLike[str]],
    writable: Iterable[str | os.PathLike[str]],
    closed: Iterable[str | os.PathLike[str]],
    devices: Iterable[str] = (),
    network: bool,
) -> Confinement:
    """A confinement in which nothing of `closed` can be read but what `readable` or `writable` name within it.

    Where a folder in `readable` holds something closed, what lies beside that is readable, as it is now; of the folder
    itself only names can be listed.
    """
    kept = {Path(os.path.realpath(path)) for path in closed}
    above = {folder for path in kept for folder in path.parents}
    opened: dict[str, None] = {}
    listed: dict[str, None] = {}
    for path in readable:
        for place, is_open in _around(Path(os.path.realpath(path)), kept, above):
            (opened if is_open else listed)[str(place)] = None
    return Confinement(list(opened), list(listed), [os.fspath(p) for p in writable], list(devices), network)


def _around(place: Path, closed: set[Path], above: set[Path]) -> Iterator[tuple[Path, bool]]:
    """What may be read of `place`, and True; or a folder of which names can be listed, and False.

    above: the folders that hold something closed.
    """
    if place not in closed and place not in above:
        yield place, True
        return
    yield place, False
    if place not in closed and place.is_dir():
        for entry in sorted(place.iterdir()):
            if not entry.is_symlink():  # what it leads to is readable where something else says so
                yield from _around(entry, closed, above)


def has_namespaces() -> bool:
    """Whether commands are confined here, and by a view of the file system of their own, too."""
    return landlock.version() > 0 and mounts.obstacle() is None


def here() -> str:
    """What confines commands on this machine, and from what; or "none", and why."""
    if version := landlock.version():
        no_filter = seccomp.obstacle()
        views = mounts.obstacle() is None
        kept = {
            "reading and writing elsewhere": True,
            "truncating": version >= 3,
            "modes and times": views or no_filter is None,
            "network": no_filter is None,
            "TCP": no_filter is not None and version >= 4,
            "signals": version >= 6,
            "shared memory, tracing": no_filter is None,
        }
        by = [f"Landlock {version}", *([] if no_filter else ["seccomp"]), *(["namespaces"] if views else [])]
        lacks = f"; no seccomp: {no_filter}" if no_filter else ""
        return f"{', '.join(by)} ({', '.join(what for what, holds in kept.items() if holds)}{lacks})"
    if system.is_linux():
        return "none: this kernel has no Landlock"
    if (obstacle := seatbelt.obstacle()) is not None:
        return f"none: {obstacle}"
    return "sandbox-exec (reading and writing elsewhere, network, signals)"
