"""The app, and how a command ends. Nothing heavy is imported before a command runs.

Exit codes: 0 done; 1 the run failed; 2 something the user can put right; 130 stopped by SIGINT, SIGTERM or SIGHUP;
141 the reader of our output has gone. Each of them but 0 and 141 comes with one line on standard error.
"""

from __future__ import annotations

import io
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

try:
    import typer
    from typer.core import TyperGroup

    from mlx_autoresearch.training.stop import STOPS

    from .bench import bench
    from .doctor import doctor
    from .kernels import kernels
    from .research import research
    from .sweep import sweep
    from .train import config, evaluate, prepare, train
except KeyboardInterrupt:  # these imports take most of the time before `main` handles signals
    print("stopped", file=sys.stderr)
    sys.exit(130)


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        with _one_line_errors():  # in here, because typer drops the message of a KeyboardInterrupt
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Commands,
    help="GPT pretraining laboratory for one machine, on MLX.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain text: importing rich would double the time of --help
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(kernels, name="kernels")
app.add_typer(research, name="research")
for command in (sweep, prepare, train, evaluate, bench, config, doctor):
    app.command()(command)


def main() -> None:
    """Run the command line. An error that the user can act on ends it with one line on standard error."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path need not be text
    for number in STOPS:
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup sets SIGHUP to be ignored: leave it so
            signal.signal(number, signal.default_int_handler)
    with _one_line_errors():
        try:
            app(prog_name="mlx-autoresearch")
        finally:
            sys.stdout.flush()  # flushed here, so that its failure is handled like other errors


@contextmanager
def _one_line_errors() -> Iterator[None]:
    from mlx_autoresearch.errors import ReportedError, from_mlx

    try:
        yield
    except ReportedError as error:
        _end(f"error: {error}", error.exit_code)
    except KeyboardInterrupt as error:
        _end(str(error) or "stopped", 130)
    except BrokenPipeError:
        _end("", 128 + signal.SIGPIPE)
    except OSError as error:
        _end(f"error: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", 2)
    except (MemoryError, RuntimeError) as error:  # all that MLX raises; some of it the user can put right
        reported = from_mlx(error)
        if reported is None:
            raise
        if broken := re.search(r"shared library (.+\.so): ", str(error)):  # else MLX would load it in every later run
            with suppress(OSError):
                os.unlink(broken[1])
        _end(f"error: {reported}", reported.exit_code)


def _end(message: str, code: int) -> None:
    for number in STOPS:
        signal.signal(number, signal.SIG_DFL)  # another signal now ends the process at once, without a message
    if message:
        with suppress(OSError):
            newline = "\n" if code == 130 and sys.stderr.isatty() else ""  # after the ^C that the terminal shows
            print(newline + " ".join(message.splitlines()), file=sys.stderr, flush=True)
    try:
        sys.stdout.flush()
    except OSError:  # else the interpreter flushes again at exit, and complains
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
