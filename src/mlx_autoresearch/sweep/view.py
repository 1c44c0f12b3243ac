"""What a sweep shows while it runs: one line per point, and on a terminal the current point's progress."""

from __future__ import annotations

import sys
from typing import Self


class View:
    """Plain lines; a base for other ways."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def say(self, line: str) -> None:
        """One line that stays."""
        print(line, flush=True)

    def live(self, label: str, share: float) -> None:
        """The share of the current point's run that is done, 0 to 1; `label` is its values. Called from any thread."""


class TerminalView(View):
    """The same, with a progress bar of the current point below the lines."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress = Progress(
            BarColumn(bar_width=24), TextColumn("{task.description}", markup=False), console=Console(), expand=False
        )
        self._task = self._progress.add_task("starting", total=1.0)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        self._progress.console.print(line, markup=False, highlight=False)

    def live(self, label: str, share: float) -> None:
        self._progress.update(self._task, completed=share, description=f"{100 * share:.0f}%  {label}")


def make_view() -> View:
    """A progress bar where standard output is a terminal, lines elsewhere."""
    return TerminalView() if sys.stdout.isatty() else View()
