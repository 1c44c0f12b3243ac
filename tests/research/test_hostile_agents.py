"""More agents that nobody should trust: they end no night, get nothing out, and blame nobody else for what they did."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.ledger.ledger import Record
from mlx_autoresearch.machine import system
from mlx_autoresearch.report.write import write
from mlx_autoresearch.research.code_size import code_size
from mlx_autoresearch.research.home import Search
from mlx_autoresearch.research.loop import run
from mlx_autoresearch.research.proposers.base import Context, Proposal
from mlx_autoresearch.sandbox import landlock, processes
from mlx_autoresearch.training.data import find_data
from tests.support.confinement import confined
from tests.support.laboratory import Programs, Quiet, free_trial, git, make_search, run_programs

CONFIG = "research/experiment.yaml"
START = f"""
import ctypes, errno, os, resource, signal, socket, subprocess, sys, time
from pathlib import Path
CONFIG = Path({CONFIG!r})
"""
GOOD = START + 'CONFIG.write_text(CONFIG.read_text().replace("matrix_lr: 0.04", "matrix_lr: 0.001"))\n'


@pytest.fixture
def search(repository: Path, tiny: Config) -> Search:
    config = make_search(tiny, seeds={"baseline": 2, "best": 1, "most": 2})
    return Search.start(config, repository / "runs", repository, run_trial=free_trial)


def night(search: Search, *programs: str, seconds: float = 20.0) -> list[Record]:
    """The records of programs' experiments; after them the night goes on, and an honest one is kept."""
    *bad, good = run_programs(search, *(START + program for program in programs), GOOD, seconds=seconds)
    assert good.status == "keep", good.reason
    assert {record.parent for record in bad} == {good.parent}
    assert not search.workspace.path.exists()
    assert git(search.repository, "status", "--porcelain") == ""
    assert git(search.repository, "fsck") == ""
    assert not processes.marked(search.mark)
    return bad


def test_source_that_takes_hours_to_count(search: Search) -> None:
    """Comments and strings that are never closed: each was looked for to the end of the file, from every place."""
    pieces = ("/* ", '"\\', "'/*\"\\")
    for piece in pieces:
        assert code_size("a.metal", (piece * 150_000).encode()) <= 900_000
    write = "Path('custom_kernels/a.metal').write_text({!r} * 150_000)"
    for record in night(search, *map(write.format, pieces)):
        assert (record.status, record.files) == ("discard", ["custom_kernels/a.metal"])


def test_a_configuration_that_stands_for_a_thousand_times_itself(search: Search) -> None:
    """Each of its values is one of the few that are allowed, and each is the same long text; or one is very long."""
    setting = "CONFIG.write_text(CONFIG.read_text().replace('recipe: {}', '') + 'recipe: {a: ' + %s + '}\\n')"
    many, long = night(
        search, setting % "'&a ' + 'x' * 20_000 + ', b: [' + '*a,' * 1000 + ']'", setting % "'x' * 90_000"
    )
    assert many.status == "rejected"
    assert "with what its aliases stand for" in many.reason
    assert long.overrides == {"recipe.a": "a value that is too long for the ledger"}
    assert search.ledger.path.stat().st_size < 20_000


DEEP = """
def dig(top, name, levels):
    os.makedirs(top, exist_ok=True)
    at = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("a.py", os.O_CREAT, dir_fd=at))
"""


DUG = {
    "custom_kernels": "has a path of more than 200 characters",
    "src/mlx_autoresearch/recipe/.deep": "no change",
    "notes": "no change; notes left out: not among the files that may be changed",
    ".git/objects": "no change",
}


def test_a_tree_deeper_than_any_path(search: Search) -> None:
    for record, reason in zip(
        night(search, *(DEEP + f"dig({top!r}, 'x' * 100, 200)" for top in DUG)), DUG.values(), strict=True
    ):
        assert record.status == "rejected"
        assert reason in record.reason


def test_many_files_in_every_place_that_may_be_written(search: Search) -> None:
    """Files without content take no room, and inodes."""
    program = """
for folder in (".", ".git", "custom_kernels/.cache", os.environ["TMPDIR"]):
    os.makedirs(folder, exist_ok=True)
    for number in range(5000):
        os.close(os.open(f"{folder}/.{number}", os.O_CREAT))
"""
    [record] = night(search, program)
    assert record.reason == "no change"
    left = [path for path in (search.home / "experiments/0001").rglob("*") if path.is_file()]
    assert len(left) < 10


@confined
def test_a_repository_that_borrows_from_the_users(search: Search, repository: Path) -> None:
    """Alternates and a common folder lead git into somebody else's objects and refs, where there are no bounds."""
    users = repository / ".git"
    program = f"""
Path(".git/objects/info").mkdir(exist_ok=True)
Path(".git/objects/info/alternates").write_text({str(users / "objects")!r} + "\\n")
Path(".git/commondir").write_text({str(users)!r} + "\\n")
Path(".git/HEAD").write_text("ref: refs/heads/main\\n")
for command in (["commit", "-qam", "mine"], ["branch", "-f", "main"], ["gc", "--prune=now"], ["config", "a.b", "c"]):
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *who, *command], capture_output=True)
"""
    before = git(repository, "for-each-ref", "refs/heads/main"), (users / "config").read_bytes()
    [record] = night(search, program)
    assert record.reason == "no change"
    assert (git(repository, "for-each-ref", "refs/heads/main"), (users / "config").read_bytes()) == before


@confined
def test_nothing_that_is_closed_is_taken_by_any_way_into_the_folder(
    search: Search, tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is linked, moved or copied into an editable folder would be committed, and shown to the next agent."""
    monkeypatch.setenv("SOMEBODYS_API_KEY", "a secret in the environment")
    secret = tmp_path / "secret.txt"
    secret.write_text("a secret in a file")
    data = find_data(tiny)
    held_out = [data.path / name for part, s in data.manifest.splits.items() if part != "train" for name in s.files]
    places = [secret, *held_out, search.home / "research.yaml", search.ledger.path, search.repository / "README.md"]
    program = f"""
import shutil
got = []
for number, place in enumerate({[str(path) for path in places]!r}):
    for way in (os.link, os.symlink, os.rename, shutil.copyfile):
        try:
            way(place, f"custom_kernels/{{number}}.txt")
            got.append((way.__name__, place, open(f"custom_kernels/{{number}}.txt", "rb").read()[:9]))
        except OSError:
            pass
        try:
            os.remove(f"custom_kernels/{{number}}.txt")
        except OSError:
            pass
for pid in (os.getppid(), {os.getpid()}):
    for name in ("environ", "mem", "maps", "cwd/README.md", "root/etc/shadow", "fd/0"):
        try:
            got.append((pid, name, open(f"/proc/{{pid}}/{{name}}", "rb").read(9)))
        except OSError:
            pass
got += [name for name, value in os.environ.items() if "secret" in value]
print("GOT", got)
"""
    [record] = night(search, program)
    assert record.reason == "no change"
    assert (search.home / "experiments/0001/transcript.txt").read_text().split("\n")[-2] == "GOT []"
    assert secret.read_text() == "a secret in a file"


HIDDEN = "\x1b]0;mine\x07\x1b[2J\x9b31m\u202e<script>alert(1)</script>\u2028\u200b|\ttab"


def test_what_an_agent_says_moves_no_terminal_and_no_page(search: Search) -> None:
    program = f"""
setting = 'recipe: {{"\\\\e[2J<img src=q>": "\\\\e]0;mine\\\\a<img src=q>"}}\\n'
CONFIG.write_text(CONFIG.read_text().replace("recipe: {{}}", "") + setting)
sys.stdout.reconfigure(encoding="utf-8")
print("HYPOTHESIS:", {HIDDEN!r})
print("KIND:", {HIDDEN!r})
"""
    view = Quiet()
    bad, good = run_programs(search, START + program, GOOD, view=view)
    assert (bad.status, good.status) == ("discard", "keep")
    assert "alert(1)" in bad.hypothesis
    page = "".join(path.read_text() for path in write(search.home) if path.suffix == ".html")
    table = (search.home / "results.tsv").read_text()
    shown = [bad.hypothesis, bad.kind, bad.reason, *view.lines, table, page]
    shown += [(search.home / "experiments" / name).read_text() for name in ("0001/transcript.txt", "0002/brief.md")]
    shown.append(git(search.repository, "log", "-1", "--format=%B", bad.commit))
    for text in shown:
        assert not set("\x1b\x07\x9b\u202e\u2028\u200b") & set(text), text
    assert "alert(1)" in page and "<script>alert" not in page and "<img src=q" not in page
    assert [line.count("\t") for line in table.splitlines()] == [4] * 4


class Counted(Programs):
    """How often each experiment was proposed."""

    def __init__(self, *programs: str, seconds: float):
        super().__init__(*programs, seconds=seconds)
        self.asked: list[int] = []

    def propose(self, context: Context) -> Proposal | None:
        self.asked.append(context.number)
        return super().propose(context)


FAULTS = [
    "print(os.strerror(errno.ENOSPC)); raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))",
    "raise SystemExit(os.strerror(errno.EDQUOT))",
    "raise RuntimeError('CUDA error: out of memory')",
    "raise RuntimeError('[METAL] Command buffer execution failed: Impacting Interactivity')",
    "print('the machine stood still for 99 s'); sys.exit(75)",
    "signal.signal(signal.SIGSEGV, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGSEGV)",
]
STOPPED = "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32)); os.kill(os.getpid(), signal.SIGSTOP)"


def test_a_fault_that_an_agent_pretends_is_its_own_and_is_not_repeated(search: Search) -> None:
    """A full disk is waited for, and what ends while the machine stands still is made again: neither on its word."""
    proposer = Counted(*(START + program for program in (*FAULTS, STOPPED)), GOOD, seconds=6.0)
    run(search, proposer, Quiet())
    *bad, stopped, good = [r for r in search.ledger.records() if r.event == "experiment"]
    for program, record in zip(FAULTS, bad, strict=True):
        assert record.status == "crash", (program, record.reason)
        assert proposer.asked.count(record.number) == 1, program
    assert stopped.status == "timeout", stopped.reason
    assert proposer.asked.count(stopped.number) <= 4  # a busy machine may have stood still meanwhile
    assert good.status == "keep"


@pytest.mark.skipif(landlock.version() < 6, reason="this kernel cannot keep a process from signalling others")
def test_no_signal_and_no_limit_reaches_anybody_else(search: Search) -> None:
    """Signals that do no harm where they arrive, by every call that sends one."""
    program = f"""
sent = []
def attempt(name, action):
    try:
        action()
        sent.append(name)
    except OSError:
        pass
for pid in (os.getppid(), {os.getpid()}):
    attempt("kill", lambda: os.kill(pid, signal.SIGCONT))
    attempt("kill 0", lambda: os.kill(pid, 0))
    attempt("group", lambda: os.killpg(os.getpgid(pid), signal.SIGCONT))
    attempt("descriptor", lambda: signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGCONT))
    attempt("limit", lambda: resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0)))
    attempt("processors", lambda: os.sched_setaffinity(pid, os.sched_getaffinity(0)))
    attempt("priority", lambda: os.setpriority(os.PRIO_PROCESS, pid, 1))
print("SENT", sent)
"""
    [record] = night(search, program)
    assert record.reason == "no change"
    assert (search.home / "experiments/0001/transcript.txt").read_text().split("\n")[-2] == "SENT []"


@pytest.mark.skipif(system.is_macos(), reason="a process whose parent is gone may not be found on macOS")
def test_descriptors_and_processes_in_great_number(search: Search) -> None:
    """It takes all descriptors it can get, and leaves processes in sessions of their own that ignore signals."""
    program = """
held = []
try:
    while len(held) < 20_000:
        held.append(os.dup(0))
except OSError:
    pass
for number in held:
    os.close(number)
for _ in range(60):
    if os.fork() == 0:
        os.setsid()
        for number in range(1, 32):
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(number, signal.SIG_IGN)
        time.sleep(600)
"""
    [record] = night(search, program)
    assert record.status == "rejected"
    assert "processes running; killed" in record.reason


def test_whatever_an_agent_prints_the_ledger_can_be_read_again(search: Search) -> None:
    program = r"""
os.write(1, b"HYPOTHESIS: \xed\xa0\x80\x00\xff {\"number\": 1} \\ud800 \xc2\x85" + b"x" * 5000 + b"\nKIND: NaN\x85\n")
"""
    [record] = night(search, program)
    assert len(record.hypothesis) <= 200 and record.reason == "no change"
    assert Search.open(search.home, run_trial=free_trial).ledger.records() == search.ledger.records()
    assert all(json.loads(line) for line in search.ledger.path.read_bytes().splitlines())
