from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlx_autoresearch.machine import awake as machine_awake
from mlx_autoresearch.machine import system
from mlx_autoresearch.sandbox import command, processes
from mlx_autoresearch.sandbox.command import KEPT_BYTES, Outcome, Running, run_command
from mlx_autoresearch.sandbox.environment import clean_environment, temporary_folder
from tests.support import mac
from tests.support.caffeinate import Caffeinate
from tests.support.confinement import HERE, confined, confined_to
from tests.support.laboratory import daemon, wait_until

NO_LINUX = "from mlx_autoresearch.machine import system; system.is_linux = lambda: False"  # which adopts orphans
# Leaves its session, leaves a successor and ends, 500 times a second or as often as it can; it ends after 15 s.
FORKS = """
import os, sys, time
until = time.monotonic() + 15
os.fork() and os._exit(0)
while time.monotonic() < until:
    os.setsid()
    time.sleep(float(sys.argv[1]))
    os.fork() and os._exit(0)
"""


def shell(folder: Path, script: str, **limits: Any) -> Outcome:
    given = {"cwd": folder, "env": clean_environment(folder, folder), "seconds": 20.0, "mark": str(folder)} | limits
    return run_command(["sh", "-c", script], **given)


def test_a_command_that_ends_by_itself(tmp_path: Path) -> None:
    outcome = shell(tmp_path, "echo out; echo err >&2; exit 3", transcript=tmp_path / "transcript")
    assert (outcome.returncode, outcome.ended, outcome.leftovers) == (3, "exit", 0)
    assert outcome.output == "out\nerr\n" == (tmp_path / "transcript").read_text()


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    outcome = run_command(["/no/such"], cwd=tmp_path, env={}, seconds=9, mark="x")
    assert outcome.returncode == 127
    assert "cannot run /no/such" in outcome.output


def test_secrets_are_not_inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "ANTHROPIC_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "GITHUB_TOKEN",
        "HF_TOKEN",
        "SSH_AUTH_SOCK",
        "NVIDIA_API_KEY",
    ):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["relative", os.environ.get("PYTHONPATH", "")]))
    outcome = shell(tmp_path, "env")
    assert "=secret" not in outcome.output
    assert f"PYTHONPATH={Path.cwd()}/relative" in outcome.output
    assert f"HOME={tmp_path}" in outcome.output


def test_the_whole_tree_is_killed_at_the_time_limit(tmp_path: Path) -> None:
    outcome = shell(tmp_path, f"sleep 300 & {daemon()} ; sleep 300", seconds=1.5)
    assert outcome.ended == "timeout"
    assert not processes.marked(str(tmp_path))


def test_memory_of_the_whole_tree_is_limited(tmp_path: Path) -> None:
    hog = f"{sys.executable} -c 'x = bytearray(200 << 20); import time; time.sleep(60)'"
    outcome = shell(tmp_path, f"{hog} & {hog} & wait", memory_mb=300)
    assert outcome.ended == "memory"
    assert not processes.marked(str(tmp_path))


@pytest.mark.skipif(not system.is_linux(), reason="orphans are adopted on Linux alone")
@pytest.mark.parametrize("seconds", [20.0, 1.0])
@pytest.mark.parametrize("pause", [0.002, 0.0])
def test_what_forks_faster_than_one_can_look_is_killed(tmp_path: Path, pause: float, seconds: float) -> None:
    (tmp_path / "forks.py").write_text(FORKS)
    rest = 0.3 if seconds > 1 else 2
    outcome = shell(tmp_path, f"{sys.executable} forks.py {pause}; sleep {rest}", seconds=seconds)
    assert outcome.ended == ("exit" if seconds > 1 else "timeout")
    assert (outcome.leftovers > 0) == (seconds > 1)
    assert not processes.marked(str(tmp_path))


@pytest.mark.usefixtures("mac")
def test_on_a_mac_memory_is_the_footprint_which_the_gpu_adds_to(tmp_path: Path) -> None:
    """Pages of the GPU are in no resident set: 500 MiB of them pass no limit that counts only that."""
    env = clean_environment(tmp_path, tmp_path, SIMULATED_GPU_MB="500")
    outcome = shell(tmp_path, "sleep 60", memory_mb=400, env=env)
    assert outcome.ended == "memory"
    assert outcome.peak_mb >= 500


@pytest.mark.usefixtures("mac")
def test_on_a_mac_a_command_ends_as_elsewhere(tmp_path: Path) -> None:
    outcome = shell(tmp_path, "echo out; exit 0")
    assert (outcome.returncode, outcome.ended, outcome.output, outcome.leftovers) == (0, "exit", "out\n", 0)


@pytest.mark.usefixtures("mac")
@pytest.mark.parametrize("leave", ["sleep {n} &", daemon(98.7654) + ";", "(sleep {n} &);"])
def test_on_a_mac_what_a_command_leaves_behind_is_killed(tmp_path: Path, leave: str) -> None:
    """It becomes a child of process 1, and a program of the system hides its environment."""
    outcome = shell(tmp_path, f"{leave.format(n=98.7654)} exit 0")
    assert (outcome.ended, outcome.leftovers) == ("exit", 1)
    assert not [p for p in psutil.process_iter(["cmdline"]) if "98.7654" in " ".join(p.info["cmdline"] or [])]


def test_waiting_ends_although_a_process_that_is_not_found_holds_the_output(tmp_path: Path) -> None:
    """On a Mac, a program of the system that leaves its session and its parent at once; here the finders are blind."""
    blind = "from mlx_autoresearch.machine import processes; processes.running = lambda: []"
    (tmp_path / "sitecustomize.py").write_text(f"{NO_LINUX}\n{blind}")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        outcome = shell(tmp_path, f"echo first; {daemon(60)}; echo last", seconds=3.0)
    holders = processes.marked(str(tmp_path))
    processes.kill_all(lambda: processes.marked(str(tmp_path)))
    assert len(holders) == 1, "it is over while the daemon still holds the pipe"
    assert (outcome.ended, outcome.output) == ("exit", "first\nlast\n")


def test_a_supervisor_that_fails_says_why(tmp_path: Path) -> None:
    broken = "from mlx_autoresearch.machine import processes\ndef running(): raise OSError('no list')\n"
    (tmp_path / "sitecustomize.py").write_text(broken + "processes.running = running")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        outcome = shell(tmp_path, "true")
    assert outcome.ended == "lost"
    assert outcome.trouble == "the supervisor failed: OSError: no list"


def test_what_cannot_be_killed_is_said(tmp_path: Path) -> None:
    immortal = "from mlx_autoresearch.machine import processes; processes.send = lambda process, number: None"
    hasty = "from mlx_autoresearch.sandbox import processes; processes.kill_all.__defaults__ = (0.3,)"
    (tmp_path / "sitecustomize.py").write_text(f"{NO_LINUX}\n{immortal}\n{hasty}")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        outcome = shell(tmp_path, "sleep 5 & exit 0")
    assert outcome.ended == "lost"
    assert "cannot be killed" in outcome.trouble


def test_a_supervisor_that_stands_still_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command of the same user can stop it."""
    monkeypatch.setattr(command, "_GRACE_SECONDS", 0.5)
    outcome = shell(tmp_path, "kill -STOP $PPID; sleep 60", seconds=1.0)
    assert (outcome.ended, outcome.trouble) == ("lost", "its supervisor was killed")
    assert not processes.marked(str(tmp_path))


def test_output_is_capped_in_the_middle(tmp_path: Path) -> None:
    outcome = shell(tmp_path, "echo first; seq 1 1000000; echo last")
    assert outcome.output.startswith("first\n1\n")
    assert outcome.output.endswith("1000000\nlast\n")
    assert "bytes left out" in outcome.output
    assert len(outcome.output) < KEPT_BYTES + 2**17


def test_a_command_without_end_can_be_stopped(tmp_path: Path) -> None:
    env = clean_environment(tmp_path, tmp_path)
    with Running(["sleep", "300"], cwd=tmp_path, env=env, seconds=60, mark=str(tmp_path)) as running:
        assert running.alive
        assert running.stop().ended == "stopped"


def test_a_command_that_prints_without_end_is_not_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "MAX_BYTES", 1 << 16)
    env = clean_environment(tmp_path, tmp_path)
    with Running(["yes"], cwd=tmp_path, env=env, seconds=60, mark=str(tmp_path)) as running:
        wait_until(lambda: not running.alive)
        assert running.stop().ended == "output"


def test_descriptors_and_standard_input_reach_the_command(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("brief")
    read, write = os.pipe()
    script = f"{sys.executable} -c 'import os; os.write({write}, b\"mark\\n\")'; cat"
    outcome = shell(tmp_path, script, stdin=tmp_path / "in", keep=[write])
    assert outcome.output == "brief"
    with os.fdopen(read) as file:
        assert file.read() == "mark\n"


def test_what_keeps_a_mac_awake_is_no_leftover_of_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caffeinate = Caffeinate(tmp_path / "calls", monkeypatch)
    monkeypatch.setenv("PATH", f"{mac.HERE / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(machine_awake.system, "is_macos", lambda: True)
    with machine_awake.awake(lambda line: None):
        wait_until(caffeinate.runs)
        monkeypatch.undo()
        outcome = shell(tmp_path, "exit 0")
        assert (outcome.returncode, outcome.ended, outcome.leftovers) == (0, "exit", 0)
        assert caffeinate.runs()
    assert not caffeinate.runs()


@confined
def test_writing_is_confined(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "file").write_text("kept")
    script = f"""
    echo x > {inside}/new && mkdir {inside}/d && rm {inside}/new && echo inside
    echo x > {outside}/new; echo x >> {outside}/file; rm {outside}/file; mv {outside}/file {inside}; mkdir {outside}/d
    echo x > /dev/null && cat {outside}/file
    kill -0 {os.getpid()} || echo alive
    """
    outcome = shell(inside, script, confinement=confined_to(inside, readable=[outside]))
    assert "inside\n" in outcome.output
    assert (outside / "file").read_text() == "kept"
    assert os.listdir(outside) == ["file"]
    if "signals" in HERE:
        assert outcome.output.endswith("alive\n")


@pytest.mark.skipif("TCP" not in HERE and "network" not in HERE, reason=HERE)
def test_a_confined_computation_has_no_network(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        program = f'import socket; socket.create_connection(("127.0.0.1", {port})); print("on")'
        connect = f"{sys.executable} -c '{program}'"
        assert "PermissionError" in shell(tmp_path, connect, confinement=confined_to(tmp_path)).output
        assert shell(tmp_path, connect, confinement=confined_to(tmp_path, network=True)).output == "on\n"


def test_a_temporary_folder_is_deleted_and_links_in_it_are_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o500)
    with temporary_folder(tmp_path / "new", ".scratch") as folder:
        assert folder.parent == tmp_path / "new" and folder.name.startswith(".scratch-")
        (folder / "link").symlink_to(victim)
        (folder / "inner").mkdir()
        (folder / "inner/file").touch()
    assert os.listdir(tmp_path / "new") == []
    assert victim.stat().st_mode & 0o777 == 0o500
