"""The first step's compilations: counted for the display, and made shorter. Most steps compile nothing."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from mlx_autoresearch.machine import compiled, device, preamble

from .progress import Reporter

LOOPS = 65  # about as many has the first step of the shipped recipe, whatever the configuration
_POLL_SECONDS = 0.1
_SHOWN_FROM = 2  # loops: fewer are compiled before anybody has read that they are
_PACE = 10  # loops, over which the time that is left is estimated


class Compilation:
    """Watches MLX compile, in threads of its own, from `with` to `end`.

    The first file that appears in MLX's folder starts the compilation of the header that all loops share; MLX meanwhile
    goes on without it. Files of other processes that compile at the same time are counted too: it is for display.
    """

    def __init__(self, reporter: Reporter):
        self._reporter = reporter
        self._folder, self._suffix = _where()
        self._before: set[str] = set()
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._before = self._files()
        if self._folder is not None:
            self._start(self._watch)
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Nothing more is watched or compiled here once this returns. May be called again."""
        self._ended.set()
        while self._threads:
            self._threads.pop().join()

    def seconds(self) -> float | None:
        """How long this process waited for compilers since `with`; None where nobody can tell.

        MLX writes a source, waits until the compiler has written its library, and loads that.
        """
        if self._folder is None or self._suffix != ".so":
            return None
        waited, new = 0.0, {name for name in self._files() - self._before if name.endswith(self._suffix)}
        with suppress(OSError):  # Linux alone can tell which are this process's
            new &= compiled.loaded(self._folder)
        for name in new:
            library = self._folder / name
            with suppress(OSError):
                source = library.with_name(name.removeprefix("lib")).with_suffix(".cpp")
                waited += max(0.0, library.stat().st_mtime - source.stat().st_mtime)
        return waited

    def _start(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _watch(self) -> None:
        before = self._before
        expected = None if before or self._suffix != ".so" else LOOPS
        counter, begun, header = Counter(expected), None, None
        while not self._ended.wait(_POLL_SECONDS):
            new = self._files() - before
            if not new:
                continue
            if begun is None:
                begun = time.perf_counter()
                if self._suffix == ".so":
                    header = self._start(self._precompile)
            if header is not None and header.is_alive():
                continue  # the pace is not yet that of the others
            counter.see(sum(name.endswith(self._suffix) for name in new), time.perf_counter() - begun)
            if counter.worth_showing():
                with suppress(OSError):  # nobody reads the output any more: the training itself will notice
                    self._reporter.compiling(counter.text())
        if begun is None:
            return
        seconds = time.perf_counter() - begun
        counter.see(sum(name.endswith(self._suffix) for name in self._files() - before), seconds)
        if counter.loops >= _SHOWN_FROM:
            with suppress(OSError):
                self._reporter.compiled(counter.loops, seconds)

    def _precompile(self) -> None:
        assert self._folder is not None
        preamble.precompile(self._folder, self._ended.is_set)

    def _files(self) -> set[str]:
        if self._folder is None:
            return set()
        # All the way down: on CUDA a long name is cut into folders.
        found = (name for _, _, names in os.walk(self._folder) for name in names)
        return {name for name in found if name.endswith((".cpp", self._suffix))}


class Counter:
    """How many loops are compiled, and how long the others will take at the pace of the latest ones.

    expected: how many there will be, about; None where that is not known.
    """

    def __init__(self, expected: int | None):
        self.loops, self.expected = 0, expected
        self._seconds = 0.0
        self._seen: deque[tuple[int, float]] = deque(maxlen=_PACE)

    def see(self, loops: int, seconds: float) -> None:
        """So many loops are compiled, so many seconds after the first one was begun."""
        self.loops = max(self.loops, loops)
        if not self._seen or loops > self._seen[-1][0]:
            self._seen.append((loops, seconds))
        self._seconds = seconds

    def worth_showing(self) -> bool:
        """Whether there is more than a loop or two to wait for, and something to say."""
        return self.loops >= _SHOWN_FROM and (self.expected is None or len(self._seen) > 1)

    def text(self) -> str:
        """One line for the display."""
        if self.expected is None or self.loops >= self.expected:
            return f"compiling, once on this machine: {self.loops} loops, {self._seconds:.0f} s"
        (first, then), (last, now) = self._seen[0], self._seen[-1]
        left = (self.expected - self.loops) * (now - then) / (last - first)
        return f"compiling {self.loops} of about {self.expected} loops, once on this machine: about {left:.0f} s left"


def _where() -> tuple[Path | None, str]:
    """The folder into which MLX compiles, and the suffix of what is done; None where nobody can look."""
    backend = device.kernel_backend()
    if backend == "metal":
        return None, ""
    return (compiled.loops_folder(), ".so") if backend is None else (compiled.ptx_folder(), ".ptx")
