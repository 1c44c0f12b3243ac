"""The filter of system calls: what it answers on each processor, and what a confined program is told."""

from __future__ import annotations

import errno
import socket
import subprocess
from types import SimpleNamespace

import pytest

from mlx_autoresearch.machine import system
from mlx_autoresearch.sandbox import seccomp
from tests.support.confinement import REFUSED, assert_all, attempts, confined_to, filtered, run


@filtered
def test_system_calls_that_reach_past_files_are_refused(place: SimpleNamespace) -> None:
    """Each is made with arguments that would do: so an error of any other kind is a hole."""
    column = list(seccomp._PROCESSORS).index(system.processor())
    arguments = {"shmget": "0, 4096, 0o1600", "semget": "0, 1, 0o1600", "msgget": "0, 0o1600", "unshare": "0x10000000"}
    names = [name for name, numbers in seccomp._REFUSED.items() if numbers[column] is not None]
    tries = [f"call({seccomp._REFUSED[n][column]}, {arguments.get(n, '0, 0, 0, 0, 0, 0')})" for n in names]
    tries += [
        f"call({seccomp._CLONE[column]}, {flag:#x} | 17, 0, 0, 0, 0)"
        for flag in (0x10000000, 0x20000, 0x8000000, 0x20000000, 0x40000000, 0x2000000, 0x4000000)
    ]
    outcome = run(attempts(*tries), confined_to(place.inside, network=True), place.inside)
    assert_all(outcome, "Operation not permitted")


@filtered
def test_limits_and_priorities_of_other_processes_stay(place: SimpleNamespace) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        other = process.pid
        tries = [
            f"import resource; resource.prlimit({other}, resource.RLIMIT_CPU, (1, 1))",
            f"os.setpriority(os.PRIO_PROCESS, {other}, 19)",
            f"os.setpriority(os.PRIO_PGRP, {other}, 19)",
            f"os.sched_setaffinity({other}, {{0}})",
            f"os.sched_setscheduler({other}, os.SCHED_BATCH, os.sched_param(0))",
        ]
        outcome = run(attempts(*tries), confined_to(place.inside), place.inside)
        process.kill()
    assert_all(outcome, *REFUSED)
    fine = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (99, 99)); os.nice(1); print('fine')"
    assert run(fine, confined_to(place.inside), place.inside).output == "fine\n"


@filtered
@pytest.mark.parametrize("network", [False, True])
def test_sockets(place: SimpleNamespace, network: bool) -> None:
    """An agent has the internet's, a training Unix sockets that reach nothing: CUDA does not start without."""
    kinds = ["AF_VSOCK, 1", "AF_ALG, 5", "AF_PACKET, 3"]
    kinds += ["AF_UNIX, socket.SOCK_STREAM", "AF_UNIX, socket.SOCK_DGRAM"] if network else []
    internet = ["AF_INET, 1", "AF_INET, 2", "AF_INET6, 1", "AF_INET6, 2"]
    tries = [f"socket.socket(socket.{kind})" for kind in kinds + ([] if network else internet)]
    tries += ["socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)", f"call({socketpair_number()}, 1, 3, 0, 0)"]
    assert_all(run(attempts(*tries), confined_to(place.inside, network=network), place.inside), *REFUSED)
    fine = "a, b = socket.socketpair(); a.send(b'x'); print(b.recv(1))"
    assert run(fine, confined_to(place.inside, network=network), place.inside).output == "b'x'\n"
    if network:
        outcome = run(
            attempts(*(f"socket.socket(socket.{kind})" for kind in internet[:2])),
            confined_to(place.inside, network=True),
            place.inside,
        )
        assert_all(outcome, "done")


def socketpair_number() -> int:
    return seccomp._SOCKETPAIR[list(seccomp._PROCESSORS).index(system.processor())]


REACHES = """s = socket.socket(socket.AF_UNIX, socket.{0}); s.connect({1!r})
s = socket.socket(socket.AF_UNIX, socket.{0}); s.sendto(b"x", {1!r})
s = socket.socket(socket.AF_UNIX, socket.{0}); s.sendmsg([b"x"], [], 0, {1!r})"""


@filtered
@pytest.mark.parametrize("network", [False, True])
@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM"])
@pytest.mark.parametrize("abstract", [False, True], ids=["a path", "abstract"])
def test_a_service_on_a_unix_socket_is_out_of_reach(
    place: SimpleNamespace, network: bool, kind: str, abstract: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.inside)  # a socket's path is short
    name = "\0mlx-autoresearch-test" if abstract else "service"
    with socket.socket(socket.AF_UNIX, getattr(socket, kind)) as server:
        server.bind(name)
        if kind == "SOCK_STREAM":
            server.listen()
        tries = REACHES.format(kind, name).splitlines()
        outcome = run(attempts(*tries), confined_to(place.inside, network=network), place.inside)
    assert_all(outcome, *REFUSED, "Connection refused")


@filtered
@pytest.mark.parametrize("processor", seccomp._PROCESSORS)
@pytest.mark.parametrize("network", [False, True])
@pytest.mark.parametrize("attributes", [False, True])
def test_a_filter_knows_its_processor_and_no_other(processor: str, network: bool, attributes: bool) -> None:
    """Run by an interpreter of BPF: the kernel here knows one processor alone."""
    code = list(seccomp.program(processor, network=network, attributes=attributes))
    architecture, column = seccomp._PROCESSORS[processor]
    refused, allowed = seccomp._REFUSE, seccomp._ALLOW
    assert verdict(code, 0, 0x40000003) == refused, "calls of 32-bit programs have other numbers"
    for numbers in seccomp._REFUSED.values():
        if numbers[column] is not None:
            assert verdict(code, numbers[column], architecture) == refused
    for numbers in seccomp._ATTRIBUTES.values():
        if numbers[column] is not None:
            assert verdict(code, numbers[column], architecture) == (allowed if attributes else seccomp._PRETEND)
    assert verdict(code, (1, 64)[column], architecture) == allowed, "write"
    if processor == "x86_64":
        assert verdict(code, 0x40000000 + 1, architecture) == refused
    sockets = {family: verdict(code, seccomp._SOCKET[column], architecture, family, 1) for family in (1, 2, 10, 16, 17)}
    internet, unix = (allowed, refused) if network else (refused, allowed)
    assert sockets == {1: unix, 17: refused} | dict.fromkeys((2, 10, 16), internet)
    no_reach = allowed if network else seccomp._FAIL + errno.ECONNREFUSED
    for number in (seccomp._CONNECT, seccomp._SENDMSG, seccomp._SENDMMSG):
        assert verdict(code, number[column], architecture) == no_reach
    for address in (0, 1, 1 << 40):
        answer = allowed if network or not address else refused
        assert verdict(code, seccomp._SENDTO[column], architecture, 3, 0, 0, 0, address) == answer
    for kind, answer in ((1, allowed), (5, allowed), (2, refused), (3, refused), (0x80801, allowed)):
        assert verdict(code, seccomp._SOCKETPAIR[column], architecture, 1, kind) == answer
    assert verdict(code, seccomp._IOCTL[column], architecture, 0, 0x5412) == refused
    assert verdict(code, seccomp._IOCTL[column], architecture, 0, 0x5401) == allowed
    assert verdict(code, seccomp._CLONE[column], architecture, 0x11) == allowed
    assert verdict(code, seccomp._CLONE[column], architecture, 0x3D0F00) == allowed, "a thread"
    assert len(code) < 4096 and len({len(step) for step in code}) == 1


def verdict(code: list[bytes], number: int, architecture: int, *arguments: int) -> int:
    """What a filter answers to a system call; its instructions are those of classic BPF that it uses."""
    import struct

    data = struct.pack("=iIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    value, at = 0, 0
    while True:
        what, yes, no, k = struct.unpack("=HBBI", code[at])
        at += 1
        if what == 0x06:
            return k
        if what == 0x20:
            (value,) = struct.unpack_from("=I", data, k)
        elif what == 0x54:
            value &= k
        else:
            holds = {0x15: value == k, 0x35: value >= k, 0x45: bool(value & k)}[what]
            at += yes if holds else no
