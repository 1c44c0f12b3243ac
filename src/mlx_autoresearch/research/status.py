"""Which searches there are, and how far one is, in a few lines of text."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.ledger.files import LEDGER, LOCK, SETTINGS
from mlx_autoresearch.ledger.ledger import Ledger, decided
from mlx_autoresearch.ledger.standing import fresh_values, improvement
from mlx_autoresearch.machine.lock import is_free

from .settings import load_search
from .view import experiment_line
from .workspace import repository_of


def default_home(repository: Path) -> Path:
    """Where the searches of a checkout are."""
    return repository / "runs" / "research"


def find_search(which: str | None, home: str | None) -> Path:
    """A search's folder, by tag, by path, or the latest of all in `home`. Raises UserError when there is none."""
    if which is not None and (Path(which) / SETTINGS).is_file():
        return _as_it_is_called(Path(which))
    parent = Path(home) if home else default_home(repository_of(Path.cwd()))
    found = sorted(parent.glob(f"*/{SETTINGS}"), key=lambda p: p.stat().st_mtime)
    if which is not None and (parent / which / SETTINGS).is_file():
        return _as_it_is_called(parent / which)
    if not found:
        raise UserError(f"no search in {parent}: `mlx-autoresearch research start configs/research/overnight.yaml`")
    if which is not None:
        raise UserError(f"no search {which!r} in {parent}; there are {', '.join(p.parent.name for p in found)}")
    return found[-1].parent


def _as_it_is_called(folder: Path) -> Path:
    """The path by which the search in `folder` was made: some file systems take `Night` for `night`, git does not."""
    names = [path.name for path in folder.absolute().parent.iterdir()]
    if folder.name in names:
        return folder
    alike = (name for name in names if name.lower() == folder.name.lower())
    return next((folder.with_name(name) for name in alike if folder.with_name(name).samefile(folder)), folder)


def state_of(home: Path) -> str:
    """Whether a process runs the search now, in words."""
    try:
        return "not running" if is_free(home / LOCK) else "running"
    except OSError as error:
        return f"unknown ({error.strerror})"


def status_text(home: Path) -> str:
    """One greppable `key: value` a line, then the last experiments."""
    if not (home / SETTINGS).is_file():
        raise UserError(f"{home} holds no search")
    config = load_search(home / SETTINGS)
    ledger = Ledger(home / LEDGER)
    records = ledger.records()
    best = ledger.best()
    experiments = [r for r in decided(records) if r.event == "experiment"]
    counts = Counter(r.status for r in experiments)
    seconds = sum(r.seconds for r in records)
    values = {
        "research": config.tag,
        "folder": str(home),
        "state": state_of(home),
        "experiments": f"{len(experiments)}" + (f" of {config.experiments}" if config.experiments else ""),
        "decisions": ", ".join(f"{n} {status}" for status, n in counts.most_common()) or "none yet",
        "hours": f"{seconds / 3600:.2f}",
    }
    if best is not None and (gained := improvement(records)) is not None:
        fresh = any(r.event == "remeasure" and r.number == best.number for r in records)
        seeds = f" (measured afresh at {len(fresh_values(records, best))} seeds)" if fresh else ""
        values["start_val_bpb"] = f"{gained.start:.6f}"
        values["best_val_bpb"] = f"{gained.best:.6f}{seeds}"
        values["improvement"] = f"{0 - gained.change:.1f}%"
        values["best"] = f"experiment {best.number}, commit {best.commit[:7]}: {best.hypothesis}"
    if records and (difference := records[-1].methods.difference()):
        values["measured_with"] = f"{difference}: not comparable with new results"
    width = max(map(len, values)) + 2
    lines = [f"{key + ':':<{width}}{value}" for key, value in values.items()]
    if best is not None:
        lines += [experiment_line(record, best) for record in records[-5:]]
    return "\n".join(lines)
