"""`mlx-autoresearch prepare`, `train`, `evaluate` and `config`: the commands for one configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .signals import uninterrupted

if TYPE_CHECKING:
    from mlx_autoresearch.config.settings import Config

Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="CONFIG.yaml|section.key=value", help="a YAML file, and settings that win over it"),
]


def prepare(settings: Settings = None) -> None:
    """Fetch the text, train the tokenizer, write token shards.

    Does nothing when all is there.
    """
    config = _config(settings)
    with uninterrupted():
        from mlx_autoresearch.data.parts import HELD_OUT
        from mlx_autoresearch.data.prepare import prepare as prepare_data
        from mlx_autoresearch.machine.paths import cache_dir

    data = prepare_data(config.data.source, vocab_size=config.data.vocab_size, cache_dir=cache_dir())
    typer.echo(f"data ready: {data.path}")
    for name in ("train", *HELD_OUT):
        if (split := data.manifest.splits.get(name)) is None:
            typer.echo(f"{name + ':':<14}none: the held-out text is too little")
            continue
        typer.echo(
            f"{name + ':':<14}{split.documents:,} documents, {split.tokens:,} tokens, {split.bytes:,} bytes, "
            f"{split.bytes_per_token:.3f} bytes per token"
        )
    typer.echo(f"val_sha256: {data.manifest.val_sha256}")


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
    config = (
        load_config(path, overrides) if resume is None else None
    )  # before MLX is loaded, so that wrong settings end at once
    with uninterrupted():
        from mlx_autoresearch.machine.blas import require_mlx

        require_mlx()
        from mlx_autoresearch.training import trainer
        from mlx_autoresearch.training.run import Run

    if resume is not None:
        trainer.resume(resume, Run.open(resume).config(overrides))
    elif config is not None:
        trainer.train(config, runs=runs, name=Path(path).stem if path else "train")


def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="a run folder")],
    reference: Annotated[
        bool, typer.Option("--reference", help="also measure as karpathy/autoresearch does, for published figures")
    ] = False,
) -> None:
    """Repeat a run's final evaluation from its checkpoint."""
    with uninterrupted():
        from mlx_autoresearch.machine.blas import require_mlx

        require_mlx()
        from mlx_autoresearch.training.trainer import evaluate_run

    bpb = evaluate_run(run, reference=reference)
    typer.echo(f"val_bpb: {bpb.val_bpb:.6f}")
    if bpb.reference_bpb is not None:
        typer.echo(f"val_bpb_reference: {bpb.reference_bpb:.6f}")
    typer.echo(f"eval_tokens: {bpb.tokens}")
    typer.echo(f"eval_share: {bpb.share:.4f}")
    typer.echo(f"eval_bytes: {bpb.bytes}")


def config(settings: Settings = None) -> None:
    """Print the resolved configuration."""
    resolved = _config(settings)
    from mlx_autoresearch.recipe.settings import recipe_settings

    recipe_settings(resolved.recipe)
    typer.echo(resolved.to_yaml(), nl=False)


def _config(settings: list[str] | None) -> Config:
    from mlx_autoresearch.config.load import load_config, split_settings

    return load_config(*split_settings(settings or []))
