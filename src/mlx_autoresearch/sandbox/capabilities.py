"""A Linux process gives up its capabilities: those of root, and those within a namespace of its own."""

from __future__ import annotations

import ctypes
import os
import struct

_PR_SET_NO_NEW_PRIVS, _VERSION_3 = 38, 0x20080522


def give_up() -> None:
    """Drop all capabilities of this process, for good: no program that it starts gets them back either.

    Root without them is a user who owns root's files. With them root could read other processes' memory and
    environment past Landlock (CAP_PERFMON, from Linux 6.13 on), and undo what confines it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.capset(struct.pack("=Ii", _VERSION_3, 0), bytes(24)):
        raise OSError(ctypes.get_errno(), f"capabilities: {os.strerror(ctypes.get_errno())}")
