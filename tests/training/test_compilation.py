"""A first step that compiles is counted and kept; one that does not says nothing."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from mlx_autoresearch.machine import compiled, preamble
from mlx_autoresearch.machine.compiled import kept_files, loops_folder
from mlx_autoresearch.training import compilation
from mlx_autoresearch.training.compilation import Compilation, Counter
from mlx_autoresearch.training.progress import Reporter
from tests.support.compiled_loops import loops, needs_gcc
from tests.support.runs import make_config

TRAIN = """
import sys
import mlx_autoresearch
from mlx_autoresearch.config.load import load_config
from mlx_autoresearch.data.prepare import prepare
from mlx_autoresearch.machine.paths import cache_dir
from mlx_autoresearch.training import trainer
from mlx_autoresearch.training.progress import Reporter
config = load_config(sys.argv[1])
prepare(config.data.source, vocab_size=config.data.vocab_size, cache_dir=cache_dir(), quiet=True)
print(repr(trainer.train(config, runs=sys.argv[2], reporter=Reporter())["val_bpb"]))
"""


def train(config: Path, temporary: Path, runs: Path) -> list[str]:
    """The lines of a training in a process whose TMPDIR is `temporary`."""
    temporary.mkdir(exist_ok=True)
    env = os.environ | {"TMPDIR": str(temporary), "MLX_AUTORESEARCH_CACHE": str(runs / "cache")}  # one that is empty
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(config), str(runs)], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@needs_gcc
def test_a_training_counts_what_it_compiles_and_the_next_one_finds_it(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text(make_config(corpus, max_steps=2).to_yaml())
    cold = train(tmp_path / "config.yaml", tmp_path / "before", tmp_path / "runs")
    assert any(line.startswith("compiling") and "once on this machine" in line for line in cold)
    assert any(line.startswith("compiled ") for line in cold)
    made = {path.name for path in loops(tmp_path / "before")}
    monkeypatch.setenv("MLX_AUTORESEARCH_CACHE", str(tmp_path / "runs" / "cache"))
    assert made <= {path.name for path in kept_files()}
    warm = train(tmp_path / "config.yaml", tmp_path / "after", tmp_path / "runs")
    assert not any(line.startswith("compil") for line in warm)
    assert warm[-1] == cold[-1], "the digits of the result"
    assert not list(loops_folder(tmp_path / "after").glob("*.cpp")), "nothing should be compiled again"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MLX's folder of loops, where a test plays MLX's part; the header takes no time."""
    monkeypatch.setattr(compilation.device, "kernel_backend", lambda: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(compilation, "_POLL_SECONDS", 0.005)
    monkeypatch.setattr(preamble, "precompile", lambda folder, given_up: True)
    loops_folder().mkdir(parents=True)
    (loops_folder() / "libold.so").touch()
    return loops_folder()


class Seen(Reporter):
    def __init__(self) -> None:
        super().__init__(io.StringIO())
        self.counters: list[str] = []
        self.two = threading.Event()

    def compiling(self, counter: str) -> None:
        self.counters.append(counter)
        self.two.set()

    def compiled(self, loops: int, seconds: float) -> None:
        self.counters.append(f"{loops} in all")


def test_new_loops_are_counted(folder: Path) -> None:
    reporter = Seen()
    with Compilation(reporter) as watch:
        for name in "ab":
            (folder / f"{name}.cpp").touch()
            (folder / f"lib{name}.so").touch()
        assert reporter.two.wait(30)
        (folder / "libc.so").touch()
        watch.end()
        watch.end()
    assert reporter.counters[0].startswith("compiling, once on this machine: 2 loops")
    assert reporter.counters[-1] == "3 in all"


def test_what_compilers_took_is_known(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the source to its library, for the new ones that this process uses."""
    with Compilation(Seen()) as watch:
        for i, name in enumerate("abc"):
            (folder / f"{name}.cpp").touch()
            os.utime(folder / f"{name}.cpp", (100.0, 100.0))
            (folder / f"lib{name}.so").touch()
            os.utime(folder / f"lib{name}.so", (100.5 + i, 100.5 + i))
        monkeypatch.setattr(compiled, "loaded", lambda _: {"liba.so", "libb.so", "libold.so", "libgone.so"})
        assert watch.seconds() == 0.5 + 1.5

        def nowhere(_: Path) -> set[str]:
            raise FileNotFoundError("/proc/self/maps")

        monkeypatch.setattr(compiled, "loaded", nowhere)
        assert watch.seconds() == 0.5 + 1.5 + 2.5
    monkeypatch.setattr(compilation.device, "kernel_backend", lambda: "metal")
    assert Compilation(Seen()).seconds() is None


def test_one_loop_or_none_is_not_worth_a_word(folder: Path) -> None:
    reporter = Seen()
    with Compilation(reporter):
        (folder / "liba.so").touch()
    assert reporter.counters == []


def test_the_header_is_begun_with_the_first_source_and_given_up_at_the_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = threading.Event(), threading.Event()

    def precompile(where: Path, given_up) -> bool:
        assert where == folder
        begun.set()
        while not given_up():
            pass
        ended.set()
        return False

    monkeypatch.setattr(preamble, "precompile", precompile)
    with Compilation(Seen()):
        assert not begun.wait(0.1)
        (folder / "a.cpp").touch()
        assert begun.wait(30)
    assert ended.is_set()


def test_a_display_that_is_gone_is_left_to_the_training(folder: Path) -> None:
    class Gone(Seen):
        def compiling(self, counter: str) -> None:
            super().compiling(counter)
            raise BrokenPipeError

    reporter, unraised = Gone(), []
    hook, threading.excepthook = threading.excepthook, unraised.append
    try:
        with Compilation(reporter):
            for name in "ab":
                (folder / f"lib{name}.so").touch()
            assert reporter.two.wait(30)
    finally:
        threading.excepthook = hook
    assert unraised == []


def test_metal_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation.device, "kernel_backend", lambda: "metal")
    before = threading.active_count()
    with Compilation(Seen()):
        assert threading.active_count() == before


def test_on_cuda_code_below_folders_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation.device, "kernel_backend", lambda: "cuda")
    monkeypatch.setattr(compilation, "_POLL_SECONDS", 0.005)
    monkeypatch.setenv(compiled.PTX_FOLDER, str(tmp_path))
    reporter = Seen()
    with Compilation(reporter):
        (tmp_path / "long").mkdir()
        (tmp_path / "a.ptx").touch()
        (tmp_path / "long" / "b.ptx").touch()
        assert reporter.two.wait(30)
    assert reporter.counters[-1] == "2 in all"


def test_where_there_is_nothing_yet_the_number_is_estimated(folder: Path) -> None:
    (folder / "libold.so").unlink()
    reporter, number = Seen(), 0
    with Compilation(reporter):
        while not reporter.two.wait(0.02):
            (folder / f"lib{number}.so").touch()
            number += 1
    assert f"of about {compilation.LOOPS} loops" in reporter.counters[0]


def test_the_time_left_follows_the_latest_pace() -> None:
    counter = Counter(40)
    counter.see(1, 5.0)
    counter.see(2, 10.0)
    for i in range(10):
        counter.see(3 + i, 10.0 + i / 2)
    assert counter.worth_showing()
    assert counter.text() == "compiling 12 of about 40 loops, once on this machine: about 14 s left"


@pytest.mark.parametrize("expected", [None, 3])
def test_where_the_number_is_not_known_the_time_so_far_is_shown(expected: int | None) -> None:
    counter = Counter(expected)
    counter.see(2, 3.0)
    counter.see(4, 7.4)
    assert counter.text() == "compiling, once on this machine: 4 loops, 7 s"


def test_plain_lines_show_the_beginning_and_the_end() -> None:
    out = io.StringIO()
    reporter = Reporter(out)
    for left in (9, 8, 7):
        reporter.compiling(f"{left} s left")
    reporter.compiled(61, 8.2)
    assert out.getvalue().splitlines() == ["9 s left", "compiled 61 loops in 8 s"]
