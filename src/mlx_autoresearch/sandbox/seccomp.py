"""seccomp: a Linux process gives up, for itself and all its descendants, system calls that reach past Landlock.

The filter is classic BPF; the interface is in linux/seccomp.h, linux/filter.h and Documentation/userspace-api/
seccomp_filter.rst. A call that is refused fails with EPERM.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator

from mlx_autoresearch.machine import system

_X86_64, _AARCH64 = range(2)
# The processor as the kernel calls it in a filter (linux/audit.h), and the column of the tables below.
_PROCESSORS = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _AARCH64)}
_X32 = 0x40000000  # and above: calls of x86-64 with pointers of 32 bits, which other numbers would slip through

# Numbers of system calls on x86-64 and aarch64, from the kernel's tables; None where there is no such call.
_REFUSED = {
    # other processes' memory, descriptors and clocks
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "process_madvise": (440, 440), "pidfd_getfd": (438, 438), "perf_event_open": (298, 241), "ioprio_set": (251, 30),
    # what acts for a process out of a filter's sight, or has been its way out most often
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "bpf": (321, 280),
    "userfaultfd": (323, 282), "open_by_handle_at": (304, 265), "fanotify_init": (300, 262), "syslog": (103, 116),
    # namespaces and mounts
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "move_mount": (429, 429), "open_tree": (428, 428), "open_tree_attr": (467, 467),
    "fsopen": (430, 430), "fspick": (433, 433), "fsmount": (432, 432), "mount_setattr": (442, 442),
    # what outlives a process: System V's and POSIX's shared memory, semaphores and queues, and keys
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semctl": (66, 191), "semtimedop": (220, 192), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219),
}  # fmt: skip
# Mode, owner, times and attributes of files: Landlock does not keep from them, a mount that is read-only does.
_ATTRIBUTES = {
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "setxattrat": (463, 463), "removexattrat": (466, 466), "file_setattr": (469, 469),
}  # fmt: skip
_ATTRIBUTE_CONTROLS = (0x40086602, 0x40046602, 0x401C5820, 0x40087602)  # FS_IOC_SETFLAGS, of 32 bits, FSSETXATTR, ...
_TERMINAL_CONTROLS = (0x5412, 0x541C)  # TIOCSTI and TIOCLINUX, which type into a terminal
_IOCTL, _CLONE, _CLONE3, _SOCKET, _SOCKETPAIR = (16, 29), (56, 220), (435, 435), (41, 198), (53, 199)
_CONNECT, _SENDTO, _SENDMSG, _SENDMMSG = (42, 203), (44, 206), (46, 211), (307, 269)
_PRLIMIT, _SETPRIORITY = (302, 261), (141, 140)
_SCHEDULE = ((203, 122), (144, 119), (142, 118), (314, 274))  # sched_setaffinity, -scheduler, -param, -attr
_NEW_NAMESPACES = 0x7E020000  # the flags CLONE_NEW*
_UNIX, _STREAM, _SEQPACKET = 1, 1, 5
_INTERNET = (2, 10, 16)  # AF_INET, AF_INET6, and AF_NETLINK, which tells what addresses this machine has

_LOAD, _AND, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000  # SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO, to which an error number is added
_REFUSE, _PRETEND = _FAIL + errno.EPERM, _FAIL
_PR_GET_SECCOMP, _PR_SET_SECCOMP, _FILTER = 21, 22, 2


def obstacle() -> str | None:
    """Why system calls cannot be filtered here; None where they can."""
    if system.processor() not in _PROCESSORS:
        return f"no table of {system.processor()}'s system calls"
    if ctypes.CDLL(None).prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) < 0:
        return "this kernel has no seccomp"
    return None


def confine(*, network: bool, attributes: bool) -> None:
    """Filter this process's system calls from now on. Needs no_new_privs; raises OSError where the kernel refuses.

    network: allow TCP and UDP, and no Unix sockets, which lead to services that act for whoever asks; else these alone,
    which CUDA makes when it starts, and which reach nothing. attributes: allow changes of mode, owner, times and
    attributes of files; else such a call says that it is done, and does nothing: compilers, git and Python end with an
    error at one that is refused.
    """
    code = b"".join(program(system.processor(), network=network, attributes=attributes))
    buffer = ctypes.create_string_buffer(code, len(code))
    given = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer)))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_SECCOMP, _FILTER, given, 0, 0):
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")


def program(processor: str, *, network: bool, attributes: bool) -> Iterator[bytes]:
    """The filter's instructions. Raises KeyError for an unknown processor."""
    architecture, column = _PROCESSORS[processor]
    yield _do(_LOAD, 4)
    yield from _if_not(_EQUAL, architecture, _REFUSE)
    yield _do(_LOAD, 0)
    if column == _X86_64:
        yield from _if(_AT_LEAST, _X32, _REFUSE)
    for numbers, answer in ((_REFUSED, _REFUSE), ({} if attributes else _ATTRIBUTES, _PRETEND)):
        for name in numbers:
            if (number := numbers[name][column]) is not None:
                yield from _if(_EQUAL, number, answer)
    yield from _if(_EQUAL, _CLONE3[column], _FAIL + errno.ENOSYS)  # its flags lie in memory; libc goes back to clone
    yield from _call(_CLONE[column], [_do(_LOAD, _argument(0)), *_if(_ANY_BIT, _NEW_NAMESPACES, _REFUSE)])
    families = [step for family in (_INTERNET if network else (_UNIX,)) for step in _if(_EQUAL, family, _ALLOW)]
    yield from _call(_SOCKET[column], [_do(_LOAD, _argument(0)), *families, _do(_RETURN, _REFUSE)])
    if not network:
        for numbers in (_CONNECT, _SENDMSG, _SENDMMSG):
            yield from _if(_EQUAL, numbers[column], _FAIL + errno.ECONNREFUSED)
        halves = [step for at in (0, 4) for step in (_do(_LOAD, _argument(4) + at), *_if_not(_EQUAL, 0, _REFUSE))]
        yield from _call(_SENDTO[column], halves)  # without an address it writes to the other end of a pair
    # A pair of any other kind can be pointed at somebody else's socket.
    kinds = [_do(_LOAD, _argument(1)), _do(_AND, 0xF), *_if(_EQUAL, _STREAM, _ALLOW), *_if(_EQUAL, _SEQPACKET, _ALLOW)]
    yield from _call(
        _SOCKETPAIR[column],
        [_do(_LOAD, _argument(0)), *_if_not(_EQUAL, _UNIX, _REFUSE), *kinds, _do(_RETURN, _REFUSE)],
    )
    terminal = [step for control in _TERMINAL_CONTROLS for step in _if(_EQUAL, control, _REFUSE)]
    others = [step for control in _ATTRIBUTE_CONTROLS if not attributes for step in _if(_EQUAL, control, _PRETEND)]
    yield from _call(_IOCTL[column], [_do(_LOAD, _argument(1)), *terminal, *others])
    # Limits and priorities of oneself, which is 0, and of nobody else.
    for numbers in (_PRLIMIT, *_SCHEDULE):
        yield from _call(numbers[column], [_do(_LOAD, _argument(0)), *_if_not(_EQUAL, 0, _REFUSE)])
    both = [step for i in range(2) for step in (_do(_LOAD, _argument(i)), *_if_not(_EQUAL, 0, _REFUSE))]
    yield from _call(_SETPRIORITY[column], both)
    yield _do(_RETURN, _ALLOW)


def _do(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One instruction; jumps count the instructions that are left out."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _if(test: int, value: int, answer: int) -> Iterator[bytes]:
    yield _do(test, value, 0, 1)
    yield _do(_RETURN, answer)


def _if_not(test: int, value: int, answer: int) -> Iterator[bytes]:
    yield _do(test, value, 1, 0)
    yield _do(_RETURN, answer)


def _call(number: int, steps: list[bytes]) -> Iterator[bytes]:
    """What to do for one system call; it is allowed where no step decides."""
    yield _do(_EQUAL, number, 0, len(steps) + 1)
    yield from steps
    yield _do(_RETURN, _ALLOW)


def _argument(index: int) -> int:
    """Where the lower half of an argument lies, which is all that the kernel reads of an int."""
    return 16 + 8 * index
