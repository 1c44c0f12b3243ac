"""`mlx-autoresearch research report` and `research best`: what came out, and what to do with it."""

from __future__ import annotations

from typing import Annotated

import typer

Which = Annotated[str | None, typer.Argument(metavar="TAG", help="a tag, or a search's folder [the latest]")]
Home = Annotated[str | None, typer.Option(metavar="FOLDER", help="folder of all searches [runs/research here]")]


def report(which: Which = None, home: Home = None) -> None:
    """Write progress.png and report.html, a page that opens from disk."""
    from mlx_autoresearch.report.write import write
    from mlx_autoresearch.research.status import find_search

    for path in write(find_search(which, home)):
        typer.echo(str(path))


def best(
    which: Which = None,
    home: Home = None,
    checkout: Annotated[str | None, typer.Option(metavar="FOLDER", help="make a worktree of its commit")] = None,
    branch: Annotated[str | None, typer.Option(metavar="NAME", help="with --checkout: on this new branch")] = None,
    train: Annotated[
        list[str] | None, typer.Option(metavar="key=value", help="train it with this setting; may repeat")
    ] = None,
    sample: Annotated[str | None, typer.Option(metavar="TEXT", help="let it continue this text")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="with --sample: how many, at most")] = 200,
    temperature: Annotated[float, typer.Option(min=0, help="with --sample: 0 takes the likeliest every time")] = 0.8,
    seed: Annotated[int, typer.Option(min=0, help="of --train and --sample")] = 42,
    holdout: Annotated[bool, typer.Option("--holdout", help="score it on text that no decision has seen")] = False,
    export: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="write weights, tokenizer, configuration")
    ] = None,
) -> None:
    """Show the winner; check it out, train it longer, let it write, score it on the holdout, export it.

    Options run in this order. If --train is given, --sample and --export use the newly trained model.
    """
    from mlx_autoresearch.errors import UserError
    from mlx_autoresearch.plain_text import one_line
    from mlx_autoresearch.research.status import find_search
    from mlx_autoresearch.research.winner import Winner

    if branch is not None and checkout is None:
        raise UserError("--branch goes with --checkout FOLDER")
    needs_mlx = bool(train or sample is not None or holdout or export is not None)
    if needs_mlx:
        from mlx_autoresearch.machine.blas import require_mlx

        require_mlx()
    winner = Winner.of(find_search(which, home))
    record = winner.record
    typer.echo(f"experiment: {record.number}")
    typer.echo(f"commit: {record.commit}")
    typer.echo(f"val_bpb: {record.val_bpb:.6f}")
    typer.echo(f"hypothesis: {one_line(record.hypothesis)}")
    if checkout is not None:
        typer.echo(f"checked out: {winner.check_out(checkout, branch)}")
    if not needs_mlx:
        return
    from mlx_autoresearch.research import winner_model

    if train:
        trained = winner_model.train(winner, train, seed=seed)
        typer.echo(f"trained: {trained['run']}")
        typer.echo(f"trained_val_bpb: {trained['val_bpb']:.6f}")
        typer.echo(f"trained_steps: {trained['num_steps']}")
    if sample is not None:
        text = winner_model.sample(winner, sample, tokens=tokens, temperature=temperature, seed=seed)
        typer.echo(text)
    if holdout:
        for key, value in winner_model.score_holdout(winner).items():
            typer.echo(f"{key}: {value:.6f}")
    if export is not None:
        for path in winner_model.export(winner, export):
            typer.echo(str(path))
