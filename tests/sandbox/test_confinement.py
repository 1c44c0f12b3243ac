"""What a confined command may read and write, and which processes it may reach: a program tries each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlx_autoresearch.machine import system
from mlx_autoresearch.sandbox import confinement, landlock, mounts, seccomp
from mlx_autoresearch.sandbox.command import run_command
from mlx_autoresearch.sandbox.confinement import confinement as make
from mlx_autoresearch.sandbox.environment import clean_environment
from tests.support.confinement import HERE, REFUSED, answers, assert_all, attempts, confined, confined_to, filtered, run

linux = pytest.mark.skipif(not HERE.startswith("Landlock"), reason=HERE)


@pytest.fixture(params=["namespaces", "no namespaces"])
def views(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in which mode and times are kept: the second is that of containers and of Ubuntu from 24.04 on."""
    if request.param == "no namespaces":
        monkeypatch.setattr(mounts, "obstacle", lambda: "it is not allowed")
    elif mounts.obstacle() is not None:
        pytest.skip(mounts.obstacle())
    return request.param


@confined
def test_only_what_is_allowed_can_be_read(place: SimpleNamespace, tmp_path: Path) -> None:
    """Neither by its name, nor through links, nor by executing or listing."""
    inside = tmp_path / "given"
    inside.mkdir()
    (inside / "file").write_text("given")
    (place.inside / "link").symlink_to(place.secret)
    (place.outside / "program").write_text("#!/bin/sh\n")
    (place.outside / "program").chmod(0o755)
    ours = os.path.expanduser("~")
    tries = [
        *(f"open({str(path)!r}).read()" for path in (place.secret, place.inside / "link")),
        *(f"os.listdir({str(path)!r})" for path in (place.outside, tmp_path, ours)),
        f"os.open({str(place.outside)!r}, os.O_RDONLY)",
        f"os.execv({str(place.outside / 'program')!r}, ['x'])",
        f"os.link({str(place.secret)!r}, 'hard'); open('hard').read()",
    ]
    outcome = run(attempts(*tries), confined_to(place.inside, readable=[inside]), place.inside)
    assert_all(outcome, *REFUSED, "Invalid cross-device link")
    given = run(f"print(open({str(inside / 'file')!r}).read())", confined_to(place.inside, readable=[inside]), inside)
    assert given.output == "given\n"


@confined
def test_what_is_closed_stays_closed_inside_a_folder_that_is_allowed(place: SimpleNamespace, tmp_path: Path) -> None:
    """As a cache below sys.prefix, or a home in /opt; a file in it that is allowed by name is open."""
    (tmp_path / "beside").write_text("open")
    (place.outside / "named").write_text("open")
    (place.outside / "link").symlink_to(tmp_path / "beside")
    pythons = confined_to(place.inside)
    allowed = make(
        readable=[*pythons.readable, tmp_path, place.outside / "named"],
        writable=[place.inside],
        closed=[place.outside],
        network=False,
    )
    allowed = replace(allowed, listed=[*allowed.listed, *pythons.listed])
    tries = [f"open({str(path)!r}).read()" for path in (tmp_path / "beside", place.outside / "named", place.secret)]
    assert list(answers(run(attempts(*tries), allowed, place.inside)).values())[:2] == ["done", "done"]
    assert list(answers(run(attempts(*tries), allowed, place.inside)).values())[2] in REFUSED


def test_a_folder_that_is_closed_is_opened_by_no_folder_around_it(tmp_path: Path) -> None:
    for name in ("a/b/closed", "a/open", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a/link").symlink_to("b")
    allowed = make(readable=[tmp_path], writable=[], closed=[tmp_path / "a/b/closed"], network=False)
    assert allowed.readable == [str(tmp_path / "a/open"), str(tmp_path / "other")]
    assert allowed.listed == [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a/b"), str(tmp_path / "a/b/closed")]
    assert make(readable=[tmp_path / "a/b/closed"], writable=[], closed=[tmp_path], network=False).readable


@linux
def test_nothing_of_other_processes_can_be_read(place: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of who runs this, nor of the supervisor; as root, too, who may look at any process's memory."""
    who = [str(os.getpid()), "' + str(os.getppid()) + '", "1"]
    files = ("environ", "maps", "mem", "cmdline", "fd", "status")
    tries = [f"os.open('/proc/{pid}/{name}', os.O_RDONLY)" for pid in who for name in files]
    outcome = run(attempts(*tries, "os.listdir('/proc')"), confined_to(place.inside), place.inside)
    assert_all(outcome, *REFUSED)
    own = "print(len(open('/proc/self/environ').read()) > 0, 'cpu' in open('/proc/stat').read())"
    assert run(own, confined_to(place.inside), place.inside).output == "True True\n"


@linux
def test_no_capability_is_left(place: SimpleNamespace) -> None:
    program = (
        "print([line for line in open('/proc/self/status') if line.startswith(('CapEff', 'CapPrm', 'NoNewPrivs'))])"
    )
    said = run(program, confined_to(place.inside), place.inside).output
    assert said.count("0000000000000000") == 2 and "NoNewPrivs:\\t1" in said


@linux
def test_no_device_but_four_can_be_opened(place: SimpleNamespace) -> None:
    master, terminal = os.openpty()
    mine = os.ttyname(terminal)
    names = [mine, "/dev/ptmx", "/dev/tty", "/dev/kmsg", "/dev/shm", "/dev/fuse", "/dev/vda", "/dev/sda", "/dev/mem"]
    tries = [f"os.open({name!r}, os.O_{how})" for name in names if os.path.exists(name) for how in ("RDONLY", "WRONLY")]
    outcome = run(attempts(*tries), confined_to(place.inside), place.inside)
    os.close(master), os.close(terminal)
    assert_all(outcome, *REFUSED, "Is a directory")
    assert any(mine in attempt for attempt in answers(outcome))
    fine = (
        "open('/dev/null', 'w').write('x'); print(*(len(open(f'/dev/{n}', 'rb').read(3)) for n in ('urandom', 'zero')))"
    )
    assert run(fine, confined_to(place.inside), place.inside).output == "3 3\n"


@filtered
def test_mode_owner_times_and_attributes_of_other_files_stay(place: SimpleNamespace, views: str) -> None:
    before = place.secret.stat()
    path, ours = str(place.secret), f"{os.getuid()}, {os.getgid()}"
    given = os.path.join(str(place.outside), "given")
    Path(given).write_text("readable")
    tries = [
        f"os.chmod({path!r}, 0)",
        f"os.chmod({path!r}, 0, follow_symlinks=True)",
        f"os.chown({path!r}, {ours})",
        f"os.lchown({path!r}, {ours})",
        f"os.utime({path!r}, (5, 5))",
        f"os.utime({path!r}, (5, 5), follow_symlinks=False)",
        f"os.setxattr({path!r}, 'user.mine', b'x')",
        f"os.removexattr({path!r}, 'user.mine')",
        f"file = os.open({given!r}, os.O_RDONLY); os.fchmod(file, 0)",
        f"file = os.open({given!r}, os.O_RDONLY); os.utime(file, (5, 5))",
        f"file = os.open({given!r}, os.O_RDONLY); os.setxattr(file, 'user.mine', b'x')",
        # FS_IOC_SETFLAGS: no atime
        f"import fcntl; fcntl.ioctl(os.open({given!r}, os.O_RDONLY), 0x40086602, b'\\x80\\0\\0\\0\\0\\0\\0\\0')",
        "os.chmod(0, 0o600)",  # what standard input is
    ]
    answered = run(attempts(*tries), confined_to(place.inside, readable=[Path(given)]), place.inside)
    said = (*REFUSED, "Read-only file system") if views == "namespaces" else ("done",)
    assert_all(answered, *said)
    after = place.secret.stat()
    assert (after.st_mode, after.st_mtime, after.st_ctime) == (before.st_mode, before.st_mtime, before.st_ctime)
    assert os.stat(given).st_mode & 0o777 and os.stat(given).st_mtime > 5
    assert not os.listxattr(given) and not os.listxattr(path)


@filtered
def test_ones_own_files_change_mode_and_times_where_namespaces_are_allowed(place: SimpleNamespace, views: str) -> None:
    program = "open('x', 'w'); os.chmod('x', 0o751); os.utime('x', (7, 7)); s = os.stat('x'); "
    program += "print(oct(s.st_mode)[-3:], int(s.st_mtime))"
    outcome = run(program, confined_to(place.inside), place.inside)
    assert outcome.returncode == 0
    assert (outcome.output == "751 7\n") == (views == "namespaces")


@linux
def test_nothing_else_can_be_written(place: SimpleNamespace, views: str) -> None:
    folder, file = str(place.outside), str(place.secret)
    tries = [
        f"open({file!r}, 'a')",
        f"os.truncate({file!r}, 0)",
        f"os.remove({file!r})",
        f"os.rename({file!r}, 'mine')",
        f"os.mkdir({folder + '/d'!r})",
        f"os.symlink('x', {folder + '/l'!r})",
        f"os.mkfifo({folder + '/f'!r})",
        f"os.rename({str(place.inside)!r}, {str(place.inside) + '-'!r})",
    ]
    outcome = run(attempts(*tries), confined_to(place.inside, readable=[place.outside]), place.inside)
    assert_all(outcome, *REFUSED, "Read-only file system", "Invalid cross-device link", "Device or resource busy")
    assert os.listdir(place.outside) == ["secret"] and place.secret.read_text() == "s3cret"


@pytest.mark.skipif("signals" not in HERE, reason=HERE)
def test_no_other_process_gets_a_signal(place: SimpleNamespace) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        tries = [f"os.kill({other.pid}, 15)", f"os.kill({os.getpid()}, 0)", "os.kill(os.getppid(), 0)"]
        outcome = run(attempts(*tries), confined_to(place.inside), place.inside)
        assert other.poll() is None
        other.send_signal(signal.SIGKILL)
    assert_all(outcome, *REFUSED)


@linux
def test_a_program_names_its_threads(place: SimpleNamespace, views: str) -> None:
    """CUDA does, and fails to start where it may not."""
    program = (
        "import threading\n"
        "def name():\n"
        "    path = f'/proc/self/task/{threading.get_native_id()}/comm'\n"
        "    open(path, 'w').write('mine'); print(open(path).read().strip())\n"
        "thread = threading.Thread(target=name); thread.start(); thread.join()"
    )
    outcome = run(program, confined_to(place.inside), place.inside)
    assert outcome.output == "mine\n", outcome.output


@linux
@pytest.mark.parametrize("version", range(1, 8))
def test_every_version_of_landlock_keeps_from_reading_and_writing(place: SimpleNamespace, version: int) -> None:
    if version > landlock.version():
        pytest.skip(f"this kernel's is {landlock.version()}")
    (place.inside / "sitecustomize.py").write_text(
        f"from mlx_autoresearch.sandbox import landlock; landlock.version = lambda: {version}"
    )
    path = os.pathsep.join([str(place.inside), *filter(None, [os.environ.get("PYTHONPATH")])])
    tries = [
        f"open({str(place.secret)!r})",
        f"open({str(place.secret)!r}, 'a')",
        f"os.mkdir({str(place.outside)!r} + '/d')",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        outcome = run(attempts(*tries), confined_to(place.inside), place.inside)
        inside = run(
            "os.mkdir('d'); open('d/x', 'w').write('x'); os.rename('d/x', 'd/y'); print('in')",
            confined_to(place.inside),
            place.inside,
        )
    assert_all(outcome, *REFUSED, "Read-only file system")
    assert inside.output == "in\n"


@pytest.mark.parametrize(
    ("version", "no_filter", "no_views", "said"),
    [
        (7, None, None, "Landlock 7, seccomp, namespaces (reading and writing elsewhere, truncating, modes and times, "
                        "network, signals, shared memory, tracing)"),
        (7, None, "no", "Landlock 7, seccomp (reading and writing elsewhere, truncating, modes and times, network, "
                        "signals, shared memory, tracing)"),
        (1, None, "no", "Landlock 1, seccomp (reading and writing elsewhere, modes and times, network, shared memory, "
                        "tracing)"),
        (4, "x", "no", "Landlock 4 (reading and writing elsewhere, truncating, TCP; no seccomp: x)"),
        (0, None, None, "none: this kernel has no Landlock"),
    ],
)  # fmt: skip
def test_what_holds_is_said(
    monkeypatch: pytest.MonkeyPatch, version: int, no_filter: str | None, no_views: str | None, said: str
) -> None:
    monkeypatch.setattr(system, "name", lambda: "linux")
    monkeypatch.setattr(landlock, "version", lambda: version)
    monkeypatch.setattr(seccomp, "obstacle", lambda: no_filter)
    monkeypatch.setattr(mounts, "obstacle", lambda: no_views)
    assert confinement.here() == said


@linux
@pytest.mark.parametrize(
    "program",
    [
        "printf 'int main(){return 0;}' > a.cpp; g++ -shared -fPIC a.cpp -o a.so && g++ a.cpp -o a && echo fine",
        "git init -q . && echo x > f && git add f && git -c user.name=a -c user.email=b@c commit -qm x && echo fine",
        "cp -p /bin/sh copy && echo fine",
        "node -e 'const fs = require(`fs`); fs.writeFileSync(`x`, `1`); fs.chmodSync(`x`, 0o755); "
        "fs.copyFileSync(`x`, `y`); require(`child_process`).execSync(`true`); console.log(`fine`)'",
        f"{sys.executable} -c 'import tempfile, shutil; d = tempfile.mkdtemp(); open(d + \"/a\", \"w\"); "
        "shutil.copy2(d + \"/a\", d + \"/b\"); shutil.rmtree(d); print(\"fine\")'",
    ],
    ids=["g++", "git", "cp", "node", "python"],
)  # fmt: skip
def test_compilers_git_and_interpreters_run_confined(place: SimpleNamespace, views: str, program: str) -> None:
    import shutil

    needed = program.split()[0] if not program.startswith("printf") else "g++"
    if shutil.which(needed) is None:
        pytest.skip(f"no {needed}")
    outcome = run_command(
        ["sh", "-c", program],
        cwd=place.inside,
        env=clean_environment(place.inside, place.inside, GIT_CONFIG_GLOBAL=os.devnull),
        seconds=60.0,
        mark=str(place.inside),
        confinement=confined_to(place.inside),
    )
    assert outcome.output.endswith("fine\n"), outcome.output
