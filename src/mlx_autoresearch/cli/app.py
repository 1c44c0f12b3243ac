"""The command line: thin commands over the library. Nothing heavy is imported before a command runs.

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
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

try:
    import typer
    from typer.core import TyperGroup

    from .kernels import kernels
    from .research import research
    from .sweep import sweep
except KeyboardInterrupt:  # this import is where the time goes before `main` can handle it
    print("stopped", file=sys.stderr)
    sys.exit(130)

if TYPE_CHECKING:
    from mlx_autoresearch.config.settings import Config

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
app.command()(sweep)

Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="CONFIG.yaml|section.key=value", help="a YAML file, and settings that win over it"),
]


@app.command()
def prepare(settings: Settings = None) -> None:
    """Fetch the text, train the tokenizer, write token shards.

    Does nothing when all is there.
    """
    config = _config(settings)
    with _uninterrupted():
        from mlx_autoresearch.data.prepare import prepare as prepare_data
        from mlx_autoresearch.machine.paths import cache_dir

    data = prepare_data(config.data.source, vocab_size=config.data.vocab_size, cache_dir=cache_dir())
    train, val = data.manifest.splits["train"], data.manifest.splits["val"]
    typer.echo(f"data ready: {data.path}")
    for name, split in (("train", train), ("val", val)):
        typer.echo(
            f"{name + ':':<7}{split.documents:,} documents, {split.tokens:,} tokens, {split.bytes:,} bytes, "
            f"{split.bytes / split.tokens:.3f} bytes per token"
        )
    typer.echo(f"val_sha256: {data.manifest.val_sha256}")


@app.command()
def train(
    settings: Settings = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="continue this run from its checkpoint")] = None,
    runs: Annotated[str, typer.Option(help="folder that run folders are made in")] = "runs",
) -> None:
    """Train a GPT for a fixed time, then measure val_bpb."""
    from mlx_autoresearch.config.load import load_config, split_settings
    from mlx_autoresearch.errors import UserError

    path, overrides = split_settings(settings or [])
    if resume is not None and path is not None:
        raise UserError(f"--resume takes the configuration from the run: leave {path} out")
    config = load_config(path, overrides) if resume is None else None  # wrong settings need not wait for MLX
    with _uninterrupted():
        from mlx_autoresearch.machine.blas import require_mlx

        require_mlx()
        from mlx_autoresearch.training import trainer
        from mlx_autoresearch.training.run import Run

    if resume is not None:
        trainer.resume(resume, Run.open(resume).config(overrides))
    elif config is not None:
        trainer.train(config, runs=runs, name=Path(path).stem if path else "train")


@app.command()
def evaluate(run: Annotated[str, typer.Argument(metavar="RUN", help="a run folder")]) -> None:
    """Repeat a run's final evaluation from its checkpoint."""
    with _uninterrupted():
        from mlx_autoresearch.machine.blas import require_mlx

        require_mlx()
        from mlx_autoresearch.training.trainer import evaluate_run

    bpb = evaluate_run(run)
    typer.echo(f"val_bpb: {bpb.val_bpb:.6f}")
    typer.echo(f"val_bpb_reference_bytes: {bpb.reference_bpb:.6f}")
    typer.echo(f"eval_tokens: {bpb.tokens}")
    typer.echo(f"eval_bytes: {bpb.bytes}")


@app.command()
def config(settings: Settings = None) -> None:
    """Print the resolved configuration."""
    resolved = _config(settings)
    from mlx_autoresearch.recipe.settings import recipe_settings

    recipe_settings(resolved)
    typer.echo(resolved.to_yaml(), nl=False)


@app.command()
def doctor() -> None:
    """Say what this machine has and lacks.

    Device, memory, BLAS, compiler, kernels, prepared data.
    """
    from .doctor import diagnose, print_diagnosis

    print_diagnosis(diagnose())


def main() -> None:
    """Run the command line; whatever a user can act on ends it with one line on standard error."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path need not be text
    for number in _STOPS:
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP, and means it
            signal.signal(number, signal.default_int_handler)
    with _one_line_errors():
        try:
            app(prog_name="mlx-autoresearch")
        finally:
            sys.stdout.flush()  # here, where its failure is an error like others


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Signals wait while C extensions are imported: some swallow the KeyboardInterrupt."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)


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
        if broken := re.search(r"shared library (.+\.so): ", str(error)):  # or MLX would load it in every later run
            with suppress(OSError):
                os.unlink(broken[1])
        _end(f"error: {reported}", reported.exit_code)


def _end(message: str, code: int) -> None:
    for number in _STOPS:
        signal.signal(number, signal.SIG_DFL)  # from here on another one ends the process at once, and silently
    if message:
        with suppress(OSError):
            newline = "\n" if code == 130 and sys.stderr.isatty() else ""  # after the ^C that the terminal shows
            print(newline + " ".join(message.splitlines()), file=sys.stderr, flush=True)
    try:
        sys.stdout.flush()
    except OSError:  # or the interpreter would try again, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _config(settings: list[str] | None) -> Config:
    from mlx_autoresearch.config.load import load_config, split_settings

    return load_config(*split_settings(settings or []))
