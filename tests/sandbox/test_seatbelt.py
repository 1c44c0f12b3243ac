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
from mlx_autoresearch.sandbox import confinement, landlock, seatbelt
from mlx_autoresearch.sandbox.confinement import Confinement
from tests.support.confinement import HERE
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
    argv = Confinement([str(folder), str(settings)], network=False).around(["agent", "-p", "--", "x"])
    assert argv[argv.index("--") + 1 :] == ["agent", "-p", "--", "x"]
    profile = read(argv)
    for operation in ("file-write-create", "file-write-data", "file-write-unlink", "file-write-mode", "file-link"):
        assert profile.allows(operation, f"{folder}/sub/file")
        for path in (f"{other}/file", f"{folder}x", f"{folder}x/file", "/etc/passwd", "/dev/new", str(tmp_path)):
            assert not profile.allows(operation, path) or (operation, path) == ("file-write-data", "/dev/new"), path
    assert not profile.allows("file-write-unlink", str(folder)), "the folder itself cannot be replaced"
    assert profile.allows("file-write-data", str(settings))
    assert not profile.allows("file-write-unlink", str(settings))
    assert not profile.allows("file-write-create", f"{settings}/x")
    assert profile.allows("file-write-data", "/dev/null")
    assert profile.allows("file-read*", "/etc/passwd")


def test_network_and_signals(tmp_path: Path, mac: None) -> None:
    for network in (True, False):
        profile = read(Confinement([str(tmp_path)], network).around(["x"]))
        assert [profile.allows(f"network-{what}") for what in ("outbound", "inbound", "bind")] == [network] * 3
        assert profile.allows("mach-lookup"), "Metal compiles in a service"
        assert profile.allows("signal", "self") and profile.allows("signal", "same-sandbox")
        assert not profile.allows("signal", "others")
        for service in ("job-creation", "lsopen", "appleevent-send", "user-preference-write", "file-mount"):
            assert not profile.allows(service)


def test_operations_that_this_macos_does_not_have_are_left_out(tmp_path: Path, mac: None) -> None:
    unknown = ("file-link", "file-mount", "job-creation", "lsopen", "appleevent-send", "user-preference-write")
    assert not read(Confinement([str(tmp_path)], False).around(["x"]), unknown).allows("file-write-create", "/x")


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
    argv = Confinement([str(link)], network=False).around(["x"])
    assert f"WRITABLE_0={folder}" in argv

    def control(descriptor: int, command: int, argument: bytes) -> bytes:  # whoever wrote "real" opened this folder
        return file_control.control(descriptor, command, argument).replace(b"/real\0", b"/Real\0")

    folder.rename(tmp_path / "real")
    monkeypatch.setattr(fcntl, "fcntl", control)
    argv = Confinement([str(tmp_path / "real")], network=False).around(["x"])
    assert f"WRITABLE_0={folder}" in argv


def test_a_path_that_no_profile_can_name_is_refused(tmp_path: Path, mac: None) -> None:
    folder = tmp_path / "\udce9"
    folder.mkdir()
    with pytest.raises(UserError, match="cannot be made writable: its name is not UTF-8"):
        Confinement([str(folder)], network=False).around(["x"])
    with pytest.raises(FileNotFoundError):
        Confinement([str(tmp_path / "no")], network=False).around(["x"])


def run(argv: list[str], writable: Path, *, network: bool = False) -> subprocess.CompletedProcess[str]:
    """A command as a Mac's supervisor starts it."""
    confined = Confinement([str(writable)], network).around(argv)
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
    done = run(Confinement([str(tmp_path)], network=True).around(["true"]), tmp_path)
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
    assert Confinement([str(tmp_path)], network=False).around(["agent"]) == ["agent"]


@enforced
def test_what_confines_is_said(mac: None) -> None:
    assert confinement.here() == "sandbox-exec (writing elsewhere, network, signals)"


def test_on_linux_no_program_is_put_before_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "name", lambda: "linux")
    assert Confinement([str(tmp_path)], network=False).around([sys.executable]) == [sys.executable]
    monkeypatch.setattr(landlock, "version", lambda: 7)
    assert confinement.here() == "Landlock 7 (writing elsewhere, TCP, signals)"
    monkeypatch.setattr(landlock, "version", lambda: 0)
    assert confinement.here() == "none: this kernel has no Landlock"
