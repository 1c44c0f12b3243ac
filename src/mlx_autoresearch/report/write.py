"""Writes progress.png and report.html from the ledger of a search or a sweep, and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_autoresearch.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .page import Plot

PICTURE, PAGE = "progress.png", "report.html"


def write(home: str | Path, *, title: str = "", plots: Sequence[Plot] = ()) -> tuple[Path, Path]:
    """Write progress.png and report.html in `home`, the folder of a search or a sweep; returns their paths.

    title: the folder's name where not given. Raises UserError when the folder has no ledger or cannot be written.
    """
    from mlx_autoresearch.ledger.files import LEDGER
    from mlx_autoresearch.machine.files import write_atomically

    from .figures import progress_png
    from .history import History
    from .page import page

    home = Path(home)
    if not (home / LEDGER).is_file():
        raise UserError(f"{home} has no {LEDGER}: give the folder of a search (runs/research/<tag>) or of a sweep")
    history = History.read(home)
    title = title or f"research/{home.resolve().name}"
    picture, document = home / PICTURE, home / PAGE
    with _user_errors(home):
        progress_png(history, picture, title)
        write_atomically(document, page(history, title, plots), durable=False)
    return picture, document


@contextmanager
def _user_errors(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write the report in {home}: {error.strerror or error}") from None
