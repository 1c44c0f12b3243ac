"""What a confined command may do: one description, which Landlock enforces on Linux and sandbox-exec on macOS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlx_autoresearch.machine import system

from . import landlock, seatbelt


@dataclass(frozen=True)
class Confinement:
    """What a command and all its descendants may do; they may read whatever the user can read.

    writable: files, and folders for what is beneath them. Devices that exist may be written, too.
    network: whether they may use it; Landlock keeps from TCP only. They may send no signals to other processes.
    """

    writable: list[str]
    network: bool

    def around(self, argv: Sequence[str]) -> list[str]:
        """`argv`, started by sandbox-exec on macOS. Raises what `seatbelt.command` raises."""
        if seatbelt.obstacle() is not None:
            return list(argv)
        return seatbelt.command(argv, self.writable, network=self.network)

    def enter(self) -> None:
        """Confine this process, on Linux with Landlock. Raises OSError when the kernel refuses."""
        if landlock.version():
            landlock.confine(self.writable, network=self.network)


def here() -> str:
    """What confines commands on this machine, and from what; or "none", and why."""
    if version := landlock.version():
        kept = ["writing elsewhere", *(["TCP"] if version >= 4 else []), *(["signals"] if version >= 6 else [])]
        return f"Landlock {version} ({', '.join(kept)})"
    if system.is_linux():
        return "none: this kernel has no Landlock"
    if (obstacle := seatbelt.obstacle()) is not None:
        return f"none: {obstacle}"
    return "sandbox-exec (writing elsewhere, network, signals)"
