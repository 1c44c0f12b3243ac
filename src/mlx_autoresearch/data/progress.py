"""What `prepare` shows while it works, on standard error: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 30


class Report:
    """Progress on standard error: bars on a terminal, lines elsewhere."""

    def __init__(self, quiet: bool) -> None:
        from rich import progress  # not needed, and not imported, where everything is prepared already
        from rich.console import Console

        self.console = Console(stderr=True, quiet=quiet)
        self.live = self.console.is_terminal and not quiet
        self.bars = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeElapsedColumn(),
            console=self.console,
            disable=not self.live,
            transient=True,
        )

    def __enter__(self) -> Report:
        self.bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bars.stop()

    def say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        start = time.monotonic()
        stage = Stage(self, name, total)
        yield stage
        self.bars.remove_task(stage.task)
        size = f"{stage.bytes / 1e6:,.1f} MB in " if stage.bytes else ""
        self.say(f"{name}: {size}{time.monotonic() - start:.1f} s")


class Stage:
    """Counts the bytes of text that pass through it; `complete` once there are no more."""

    def __init__(self, report: Report, name: str, total: int | None) -> None:
        self.report = report
        self.name = name
        self.task = report.bars.add_task(name, total=total)
        self.bytes = 0
        self.complete = False

    def counted(self, documents: Iterable[str]) -> Iterator[str]:
        shown, last_line = 0, time.monotonic()
        for document in documents:
            self.bytes += len(document.encode())
            if self.bytes - shown > 1 << 20:  # a bar costs more than a document
                shown = self.bytes
                self.report.bars.update(self.task, completed=shown)
                if not self.report.live and time.monotonic() - last_line > SECONDS_BETWEEN_LINES:
                    last_line = time.monotonic()
                    self.report.say(f"{self.name}: {shown / 1e6:,.0f} MB")
            yield document
        self.complete = True
