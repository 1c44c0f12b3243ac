"""What a run shows while it trains: a progress bar on a terminal, plain lines elsewhere, and the final summary."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

SECONDS_BETWEEN_LINES = 2.0  # about a training, where lines are printed


class Reporter:
    """Plain lines, one every two seconds at most; a base for other ways of showing a run."""

    def __init__(self, stream: TextIO | None = None):
        self.stream = stream or sys.stdout
        self._printed_at = float("-inf")
        self._compiling = False

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *_: object) -> None: ...

    def say(self, message: str) -> None:
        """One line that stays."""
        print(message, file=self.stream, flush=True)

    def warn(self, message: str) -> None:
        """One line of warning."""
        self.say(f"warning: {message}")

    def start(self, description: dict[str, Any]) -> None:
        """What is about to be trained."""
        d = description
        length = f"{d['max_steps']} steps" if d["max_steps"] is not None else f"{d['time_budget']:g} s"
        self.say(
            f"training {d['parameters'] / 1e6:.1f}M parameters for {length}, {d['tokens_per_step']:,} tokens a step, "
            f"on {d['device']}; run folder {d['run']}"
        )
        self.say("the first step compiles and is not counted")

    def compiling(self, counter: str) -> None:
        """MLX compiles what the first step needs; called often, from another thread."""
        if not self._compiling:
            self._compiling = True
            self.say(counter)

    def compiled(self, loops: int, seconds: float) -> None:
        """The first step is done, and has compiled so many loops."""
        self.say(f"compiled {loops} loops in {seconds:.0f} s")

    def step(self, record: dict[str, Any], remaining: float) -> None:
        """One optimizer step, as logged, and the seconds left."""
        now = time.monotonic()
        if now - self._printed_at >= SECONDS_BETWEEN_LINES:
            self._printed_at = now
            self.say(step_line(record, remaining))

    def ended(self, weights: str) -> None:
        """The last step is done. weights: their digest; nothing that an experiment may change has run since."""

    def trained(self) -> None:
        """The training has ended; what follows, if anything, is its scoring."""

    def finish(self, summary: dict[str, Any]) -> None:
        """The summary, one greppable `key: value` a line."""
        print(summary_text(summary), file=self.stream, flush=True)


class TerminalReporter(Reporter):
    """A live progress bar."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._console = Console()
        self._progress = Progress(
            BarColumn(bar_width=24), TextColumn("{task.description}", markup=False), console=self._console, expand=False
        )
        self._task = self._progress.add_task("compiling", total=1.0)

    def __enter__(self) -> Reporter:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, message: str) -> None:
        self._progress.console.print(message, markup=False, highlight=False)

    def compiling(self, counter: str) -> None:
        self._progress.update(self._task, description=counter)

    def compiled(self, loops: int, seconds: float) -> None:
        self._progress.update(self._task, description=f"compiled {loops} loops in {seconds:.0f} s")

    def step(self, record: dict[str, Any], remaining: float) -> None:
        share = record["training_seconds"] / max(record["training_seconds"] + remaining, 1e-9)
        self._progress.update(self._task, completed=share, description=step_line(record, remaining))

    def finish(self, summary: dict[str, Any]) -> None:
        self._progress.update(self._task, completed=1.0)
        self._progress.stop()
        super().finish(summary)


def make_reporter() -> Reporter:
    """A progress bar where standard output is a terminal, plain lines elsewhere."""
    return TerminalReporter() if sys.stdout.isatty() else Reporter()


def step_line(record: dict[str, Any], remaining: float) -> str:
    """A step in one line, in the reference's format."""
    mfu = "" if record["mfu_percent"] is None else f"mfu: {record['mfu_percent']:.1f}% | "
    return (
        f"step {record['step']:05d} ({100 * record['progress']:.1f}%) | loss: {record['smooth_loss']:.6f} | "
        f"lrm: {record['lr_multiplier']:.2f} | dt: {record['seconds'] * 1000:.0f}ms | "
        f"tok/sec: {record['tokens_per_second']:,.0f} | {mfu}epoch: {record['epoch']} | remaining: {remaining:.0f}s"
    )


_FORMATS = {
    "val_bpb": ".6f",
    "eval_share": ".4f",
    "num_params_M": ".2f",
    "packing_efficiency": ".4f",
    "total_tokens_M": ".3f",
}


def summary_text(summary: dict[str, Any]) -> str:
    """`---`, then `key: value` lines without those that are None; floats have one decimal unless _FORMATS says more."""
    width = max(map(len, summary)) + 2
    lines = ["---"]
    for key, value in summary.items():
        if value is None:
            continue
        shown = format(value, _FORMATS.get(key, ".1f")) if isinstance(value, float) else str(value)
        lines.append(f"{key + ':':<{width}}{shown}")
    return "\n".join(lines)
