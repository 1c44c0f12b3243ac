"""`mlx-autoresearch research ...`: search for a better model overnight."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .winner import Home, Which, best, report

if TYPE_CHECKING:
    from mlx_autoresearch.research.home import Search

research = typer.Typer(
    help="Search for a better model overnight: propose, try, measure, keep.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Experiments = Annotated[int | None, typer.Option(min=1, metavar="N", help="stop after N more experiments")]


@research.command()
def start(
    file: Annotated[str, typer.Argument(metavar="RESEARCH.yaml")],
    settings: Annotated[list[str] | None, typer.Argument(metavar="key=value", help="settings that win over it")] = None,
    home: Home = None,
    experiments: Experiments = None,
) -> None:
    """Start a search on a branch of its own.

    Ctrl-C stops it cleanly.
    """
    from mlx_autoresearch.machine.blas import require_mlx
    from mlx_autoresearch.research.settings import load_search
    from mlx_autoresearch.research.status import default_home
    from mlx_autoresearch.research.workspace import repository_of, require_code, uncommitted

    config = load_search(file, settings or [])
    repository = repository_of(Path.cwd())
    require_code(repository)
    require_mlx()
    from mlx_autoresearch.research.guard.declared import check_declared

    check_declared(config, repository)
    from mlx_autoresearch.data.prepare import prepare
    from mlx_autoresearch.machine.paths import cache_dir
    from mlx_autoresearch.research.home import Search

    prepare(config.start.data.source, vocab_size=config.start.data.vocab_size, cache_dir=cache_dir())
    if changed := uncommitted(repository):
        typer.echo(f"note: the search starts from HEAD, without your changes to {', '.join(changed[:3])}", err=True)
    parent = Path(home) if home else default_home(repository)
    _run(Search.start(config, parent, repository), experiments)


@research.command()
def resume(which: Which = None, home: Home = None, experiments: Experiments = None) -> None:
    """Continue a search that was stopped, killed or cut off, from its ledger."""
    from mlx_autoresearch.machine.blas import require_mlx
    from mlx_autoresearch.research.status import find_search

    folder = find_search(which, home)
    require_mlx()
    from mlx_autoresearch.research.home import Search

    _run(Search.open(folder), experiments)


@research.command()
def status(which: Which = None, home: Home = None) -> None:
    """Say how far a search is."""
    from mlx_autoresearch.research.status import find_search, status_text

    typer.echo(status_text(find_search(which, home)))


research.command()(report)
research.command()(best)


def _run(search: Search, experiments: int | None) -> None:
    from mlx_autoresearch.research.loop import run
    from mlx_autoresearch.research.proposers.make import make_proposer
    from mlx_autoresearch.research.status import status_text
    from mlx_autoresearch.research.view import make_view
    from mlx_autoresearch.sandbox.confinement import here

    with make_view() as view:
        view.say(f"search {search.config.tag} in {search.home}")
        view.say(f"confinement of agents and changed code: {here()}")
        try:
            run(search, make_proposer(search.config), view, experiments=experiments)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped; the experiment in hand is forgotten, all others are in {search.ledger.path}; continue "
                f"with `mlx-autoresearch research resume {search.home}`"
            ) from None
    typer.echo(status_text(search.home))
