"""sandbox-exec's profiles: what they allow, by a reader of their language, and on a simulated Mac by enforcing them."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.machine import system
from mlx_autoresearch.sandbox import confinement, seatbelt
from mlx_autoresearch.sandbox.confinement import Confinement
from mlx_autoresearch.sandbox.readable import devices, system_files
from tests.support.confinement import HERE, confined_to
from tests.support.mac import HERE as STAND_IN_FOLDER
from tests.support.mac import file_control, sbpl

enforced = pytest.mark.skipif("signals" not in HERE, reason="the stand-in for sandbox-exec needs Landlock, version 6")
HOSTILE = [
    "plain",
    "with blanks",
    'quote"',
    'quote")(allow default)(allow file-write* (subpath "/',
    "back\\slash\\",
    "new\nline",
    "semi;colon #t 'x",
    "ünï-代码",
    "NAME=value",
    "(param WRITABLE_1)",
]


STAND_IN = STAND_IN_FOLDER.parents[1]  # the tests, which the stand-in for sandbox-exec imports from
IPC = ("ipc-sysv*", "ipc-posix-shm-write-create")


def allowing(*writable: Path, network: bool = False) -> Confinement:
    """Writing in some places, and reading what every program needs."""
    given = {"readable": system_files(network=network), "devices": devices(gpu=False), "network": network}
    return confinement.confinement(writable=writable, closed=[], **given)


def read(argv: list[str], unknown: tuple[str, ...] = ()) -> sbpl.Profile:
    """What the profile on a command line allows."""
    text = argv[argv.index("-p") + 1]
    given = (argv[i + 1] for i, word in enumerate(argv[: argv.index("--")]) if word == "-D")
    return sbpl.read(text, dict(value.split("=", 1) for value in given), unknown)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_profile_allows_writing_beneath_its_folders_and_nowhere_else(tmp_path: Path, mac: None, name: str) -> None:
    folder, other = tmp_path / name, tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    settings = tmp_path / "settings.json"
    settings.touch()
    argv = allowing(folder, settings).around(["agent", "-p", "--", "x"])
    assert argv[argv.index("--") + 1 :] == ["agent", "-p", "--", "x"]
    profile = read(argv)
    for operation in ("file-write-create", "file-write-data", "file-write-unlink", "file-write-mode", "file-link"):
        assert profile.allows(operation, f"{folder}/sub/file")
        for path in (f"{other}/file", f"{folder}x", f"{folder}x/file", "/etc/passwd", "/dev/new", str(tmp_path)):
            assert not profile.allows(operation, path), path
    assert not profile.allows("file-write-unlink", str(folder)), "the folder itself cannot be replaced"
    assert profile.allows("file-write-data", str(settings))
    assert not profile.allows("file-write-unlink", str(settings))
    assert not profile.allows("file-write-create", f"{settings}/x")
    assert profile.allows("file-write-data", "/dev/null")
    assert not profile.allows("file-write-data", "/dev/tty")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_profile_allows_reading_what_is_given_and_nothing_else(tmp_path: Path, mac: None, name: str) -> None:
    for folder in (name, "other", "own"):
        (tmp_path / folder).mkdir()
    file = tmp_path / "file"
    file.touch()
    given = confinement.confinement(
        readable=[tmp_path / name, file, tmp_path / "no such"], writable=[tmp_path / "own"], closed=[], network=False
    )
    profile = read(given.around(["x"]))
    for path in (f"{tmp_path / name}/x", str(file), f"{tmp_path}/own/x", "/"):
        assert profile.allows("file-read-data", path), path
    for path in (f"{tmp_path}/other/x", f"{tmp_path / name}x", f"{file}x", "/etc/passwd", str(tmp_path), "/dev/tty"):
        assert not profile.allows("file-read-data", path), path
        assert profile.allows("file-read-metadata", path), "paths are looked up"


def test_what_is_closed_inside_a_folder_that_is_given_is_closed_in_a_profile_too(tmp_path: Path, mac: None) -> None:
    (tmp_path / "a/closed").mkdir(parents=True)
    (tmp_path / "open").mkdir()
    given = confinement.confinement(readable=[tmp_path], writable=[], closed=[tmp_path / "a/closed"], network=False)
    profile = read(given.around(["x"]))
    assert profile.allows("file-read-data", f"{tmp_path}/open/x")
    assert profile.allows("file-read-data", f"{tmp_path}/a"), "its names"
    assert not profile.allows("file-read-data", f"{tmp_path}/a/closed/x")
    assert not profile.allows("file-read-data", f"{tmp_path}/a/new")


def test_the_system_files_of_a_mac_hold_no_home_and_no_secrets(mac: None) -> None:
    for network in (True, False):
        for path in system_files(network=network):
            assert not "/Users".startswith(path) and not path.startswith(("/Users", "/etc", "/proc", "/home")), path
    assert {"/System", "/usr", "/private/var/db/dyld"} <= set(system_files(network=False))


def test_network_and_signals(tmp_path: Path, mac: None) -> None:
    for network in (True, False):
        profile = read(allowing(tmp_path, network=network).around(["x"]))
        assert [profile.allows(f"network-{what}") for what in ("outbound", "inbound", "bind")] == [network] * 3
        assert profile.allows("mach-lookup"), "Metal compiles in a service"
        assert profile.allows("signal", "self") and profile.allows("signal", "same-sandbox")
        assert not profile.allows("signal", "others")
        for service in ("job-creation", "lsopen", "appleevent-send", "user-preference-write", "file-mount", *IPC):
            assert not profile.allows(service)


def test_operations_that_this_macos_does_not_have_are_left_out(tmp_path: Path, mac: None) -> None:
    unknown = ("file-link", "file-mount", "job-creation", "lsopen", "appleevent-send", "user-preference-write", *IPC)
    assert not read(allowing(tmp_path).around(["x"]), unknown).allows("file-write-create", "/x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(allow default)", "version 1"),
        ("(version 1)(allow default", "without end"),
        ("(version 1)(allow default))", "too many"),
        ('(version 1)(allow file-write* (subpath "/a)', "without end"),
        ("(version 1)(allow file-rite*)", "unbound variable: file-rite"),
        ("(version 1)(permit default)", "unbound variable: permit"),
        ('(version 1)(allow file-write* (subpaht "/a"))', "does not apply"),
        ('(version 1)(allow file-write* (subpath "a"))', "not an absolute path"),
        ('(version 1)(allow file-write* (subpath "/a/"))', "not an absolute path"),
        ("(version 1)(allow file-write* (subpath /a))", "not a string"),
        ('(version 1)(allow file-write* (subpath (param "A")))', "is not given"),
        ("(version 1)(allow signal (target other))", "unbound variable: other"),
        ('(version 1)(allow network* (subpath "/a"))', "does not apply"),
        ("(version 1)(when (defined? 'file-lnik) (deny file-link))", "no operation"),
    ],
)
def test_the_reader_refuses_what_is_not_valid(text: str, said: str) -> None:
    with pytest.raises(sbpl.Invalid, match=said):
        sbpl.read(text, {})


def test_paths_are_those_that_the_file_system_stores(
    tmp_path: Path, mac: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "Real"
    folder.mkdir()
    link = tmp_path / "link"
    link.symlink_to(folder)
    argv = allowing(link).around(["x"])
    assert f"WRITABLE_0={folder}" in argv

    def control(descriptor: int, command: int, argument: bytes) -> bytes:  # whoever wrote "real" opened this folder
        return file_control.control(descriptor, command, argument).replace(b"/real\0", b"/Real\0")

    folder.rename(tmp_path / "real")
    monkeypatch.setattr(fcntl, "fcntl", control)
    argv = allowing(tmp_path / "real").around(["x"])
    assert f"WRITABLE_0={folder}" in argv


def test_a_path_that_no_profile_can_name_is_refused(tmp_path: Path, mac: None) -> None:
    folder = tmp_path / "\udce9"
    folder.mkdir()
    with pytest.raises(UserError, match="cannot be made writable: its name is not UTF-8"):
        allowing(folder).around(["x"])
    with pytest.raises(FileNotFoundError):
        allowing(tmp_path / "no").around(["x"])


def run(argv: list[str], writable: Path, *, network: bool = False) -> subprocess.CompletedProcess[str]:
    """A command as a Mac's supervisor starts it."""
    confined = confined_to(writable, network=network, readable=[STAND_IN]).around(argv)
    assert confined[0].endswith("/sandbox-exec")
    return subprocess.run(confined, cwd=writable, capture_output=True, text=True, timeout=60, check=False)


@enforced
@pytest.mark.parametrize("name", ["plain", 'qu"ote (allow default)', "link"])
def test_a_command_writes_where_it_may_and_nowhere_else(tmp_path: Path, mac: None, name: str) -> None:
    outside = tmp_path / "out"
    (tmp_path / "real").mkdir()
    outside.mkdir()
    (outside / "file").write_text("kept")
    inside = tmp_path / name
    inside.symlink_to("real") if name == "link" else inside.mkdir()
    script = """echo x > new && mkdir d
        echo x > "$1/new"; echo x >> "$1/file"; rm -rf "$1"; mv "$PWD" "$PWD-"; echo x > /dev/null"""
    done = run(["sh", "-c", script, "sh", str(outside)], inside)
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(inside)) == ["d", "new"]
    assert (os.listdir(outside), (outside / "file").read_text()) == (["file"], "kept")


@enforced
def test_a_program_that_is_not_there_is_named(tmp_path: Path, mac: None) -> None:
    done = run(["/no/such"], tmp_path)
    assert done.returncode != 0
    assert "/no/such" in done.stderr


@enforced
def test_a_sandbox_within_a_sandbox_fails(tmp_path: Path, mac: None) -> None:
    done = run(allowing(tmp_path, network=True).around(["true"]), tmp_path)
    assert (done.returncode, done.stderr) == (71, "sandbox-exec: sandbox_apply: Operation not permitted\n")


def without_sandbox_exec(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("PATH", str(folder))


def refusing(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    program = folder / "sandbox-exec"
    program.write_text("#!/bin/sh\necho 'sandbox-exec: sandbox_apply: Operation not permitted' >&2\nexit 71\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.parametrize(
    ("lack", "said"),
    [
        (without_sandbox_exec, "none: sandbox-exec is not installed"),
        (refusing, "none: sandbox-exec fails: sandbox-exec: sandbox_apply: Operation not permitted"),
        (lambda patch, _: patch.setenv(seatbelt.SWITCH, "off"), "none: MLX_AUTORESEARCH_SANDBOX_EXEC is off"),
    ],
)
def test_where_nothing_confines_it_is_said(
    tmp_path: Path, mac: None, monkeypatch: pytest.MonkeyPatch, lack, said: str
) -> None:
    lack(monkeypatch, tmp_path)
    assert confinement.here().startswith(said)
    assert allowing(tmp_path).around(["agent"]) == ["agent"]


@enforced
def test_what_confines_is_said(mac: None) -> None:
    assert confinement.here() == "sandbox-exec (reading and writing elsewhere, network, signals)"


def test_on_linux_no_program_is_put_before_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "name", lambda: "linux")
    assert allowing(tmp_path).around([sys.executable]) == [sys.executable]
