"""What a search shows while it runs: one line per experiment, and on a terminal the current trial's progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Self, TextIO

from mlx_autoresearch.ledger.ledger import Record
from mlx_autoresearch.machine.disk import disk_error

_SECONDS_BETWEEN_DRAWINGS = 0.2


class View:
    """Plain lines. every: seconds between two lines about the trial that runs; None for none of them."""

    def __init__(self, stream: TextIO | None = None, *, every: float | None = None):
        self._stream = stream or sys.stdout
        self._every, self._shown = every, float("-inf")
        self._waited_for = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def say(self, line: str) -> None:
        """One line that stays; where it goes to a file on a full disk, it is lost, and the search is not."""
        try:
            print(line, file=self._stream, flush=True)
        except OSError as error:
            if not disk_error(error):
                raise

    def doing(self, what: str) -> None:
        """What is being done now."""

    def progress(self, event: Mapping[str, Any]) -> None:
        """An event of the current trial, as `run_trial` tells it."""
        if event.get("event") == "waiting":
            if event["message"] != self._waited_for:  # one line for whoever holds the device, not one a trial
                self._waited_for = event["message"]
                self.say(event["message"])
        elif event.get("event") == "again":
            self.say(event["message"])
        elif event.get("event") == "step" and self._every is not None:
            now = time.monotonic()
            if now - self._shown >= self._every:
                self._shown = now
                self.say(step_text(event))

    def decided(self, record: Record, best: Record) -> None:
        """An experiment that the ledger now has."""
        self.say(experiment_line(record, best))


class TerminalView(View):
    """The same, with a line at the bottom that is redrawn."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.status import Status

        self._console = Console(highlight=False)
        self._status = Status("", console=self._console)
        self._what = ""
        self._drawn = 0.0

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)

    def doing(self, what: str) -> None:
        self._what = what
        self._show("")

    def progress(self, event: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if event.get("event") == "step":
            if now - self._drawn > _SECONDS_BETWEEN_DRAWINGS:
                self._drawn = now
                self._show(step_text(event))
        else:
            message = event.get("message", "")
            texts = {"waiting": message, "again": message, "start": "compiling", "trained": "scoring"}
            self._show(texts.get(str(event.get("event")), ""))

    def decided(self, record: Record, best: Record) -> None:
        from rich.text import Text

        styles = {"keep": "green", "discard": "default", "crash": "red", "timeout": "red", "rejected": "yellow"}
        self._console.print(Text(experiment_line(record, best), style=styles[record.status]), soft_wrap=True)

    def _show(self, text: str) -> None:
        from rich.text import Text

        self._status.update(Text(self._what + (f": {text}" if text else "")))


def make_view() -> View:
    """A live view where standard output is a terminal, plain lines elsewhere."""
    return TerminalView() if sys.stdout.isatty() else View()


def step_text(event: Mapping[str, Any]) -> str:
    """A step of the trial that runs; what an untrusted process sent is not taken for numbers."""
    try:
        return f"step {int(event['step'])}, loss {float(event['loss']):.3f}, {float(event['remaining']):.0f} s left"
    except (KeyError, TypeError, ValueError, OverflowError):
        return "training"


def experiment_line(record: Record, best: Record) -> str:
    """A record in one line, beside the best val_bpb so far."""
    bits = f"{record.val_bpb:.4f}" if record.val_bpb is not None else "   -  "
    what = {"baseline": "base", "remeasure": "again", "demote": "demoted"}.get(record.event, record.status)
    seeds = f"{len(record.trials)} seed{'s' if len(record.trials) != 1 else ' '}"
    again = "the best, measured afresh" if record.number == best.number else "the best before, measured afresh"
    text = {"remeasure": again, "demote": record.reason}.get(record.event, record.hypothesis)
    line = f"{record.number:4d}  {what:<8}  {bits}  {seeds}  {record.seconds:5.0f} s  {text}"
    if record.event == "experiment" and record.status != "keep":
        line += f"  [{record.reason}]"
    elif record.event == "experiment":
        value = f"; best {best.val_bpb:.4f}" if best.val_bpb is not None else ""
        line += f"  [{record.reason}{value}]"
    return line
