"""Writes report.html: one file that opens from disk and fetches nothing.

Everything that an agent wrote is escaped. The page's policy allows only its own script, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_autoresearch.config.yaml_text import dump_yaml
from mlx_autoresearch.ledger.files import DIFF
from mlx_autoresearch.ledger.ledger import Record
from mlx_autoresearch.plain_text import amount, duration, escape, one_line

from . import svg
from .history import STATUS_NAMES, History

_DIFF_LINES, _DIFF_CHARS = 160, 6000  # the rest is in the experiment's folder
_CLASSES = {"+": "add", "-": "remove", "@": "hunk"}


@dataclass(frozen=True)
class Plot:
    """A PNG file, its heading, and a line on how to read it."""

    heading: str
    explanation: str
    path: Path


def page(history: History, title: str, plots: Sequence[Plot] = ()) -> str:
    """The whole document; `plots` come after the staircase, embedded."""
    here = Path(__file__).parent
    style = (here / "page.css").read_text(encoding="utf-8")
    script = (here / "page.js").read_text(encoding="utf-8")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"
    best = history.best
    sections = [
        f'<h1>{escape(title)}</h1><p class="quiet">{_span(history)}</p>{_warning(history)}{_cards(history)}',
        _section("Every experiment", svg.staircase(history), _staircase_help(history)),
        *(_section(plot.heading, _image(plot), escape(plot.explanation)) for plot in plots),
        _section("Which kinds of change paid off", _kinds(history)),
        _section(
            "Training loss of what was kept", svg.curves(history), "The best is the strong line. Hover for names."
        ),
        _section(
            "Holdout", _holdout(history), "Scores on text that no decision has used; only the final best is scored."
        ),
        _section("Cost", _cost(history)),
        _section("Best configuration", _pre(history.config(best)) if best and history.config(best) else ""),
        _section("Experiments", _table(history)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(filter(None, sections))
        + f"\n<script>{script}</script>\n</body>\n</html>\n"
    )


def _warning(history: History) -> str:
    if not history.difference:
        return ""
    return f"<p>Measured with {escape(history.difference)}: do not compare these numbers with newer ones.</p>"


def _section(heading: str, content: str, explanation: str = "") -> str:
    if not content:
        return ""
    note = f'<p class="quiet">{explanation}</p>' if explanation else ""
    return f"<section><h2>{escape(heading)}</h2>{note}{content}</section>"


def _span(history: History) -> str:
    times = [r.time for r in history.records]
    return escape(f"{times[0][:16]} to {times[-1][:16]}".replace("T", " ") if times else "nothing measured yet")


def _staircase_help(history: History) -> str:
    _, high = history.scale
    off = sum(r.val_bpb is not None and r.val_bpb > high for r in history.decided)
    lines = "Green: kept, and the best so far. Grey: discarded; a triangle is off the scale or was stopped early"
    lines += f" ({off} above {high:.3f}). Red: no result." if off else ". Red: no result."
    if history.sigma:
        lines += f" The band is the noise of one run: 2 standard deviations of {history.sigma:.4f} either way."
    return f"{lines} Hover over a point for its hypothesis, click for its row."


def _cards(history: History) -> str:
    cards: list[tuple[str, str]] = []
    if (gained := history.improvement) is not None:
        cards.append((f"{gained.best:.4f}", "best val_bpb"))
        if len(history.steps) > 1:
            cards.append((f"{gained.change:+.1f}%", f"from {gained.start:.4f}"))
    cards.append((str(sum(history.counts.values())), "experiments"))
    cards += [(str(history.counts[s]), name) for s, name in STATUS_NAMES.items() if history.counts[s]]
    cards.append((duration(3600 * history.cost["hours"]), "in all"))
    return '<div class="cards">' + "".join(_card(value, name) for value, name in cards) + "</div>"


def _card(value: str, name: str) -> str:
    return f'<div class="card"><b>{escape(value)}</b><span>{escape(name)}</span></div>'


def _kinds(history: History) -> str:
    kinds = [kind for kind in history.kinds if kind.name]
    widest = max((kind.gain for kind in kinds), default=0.0)
    rows = []
    for kind in kinds:
        width = round(220 * max(kind.gain, 0.0) / widest) if widest > 0 else 0
        bar = f'<span class="bar" style="width:{width}px"></span>'
        gain = f"{-kind.gain:+.4f}" if kind.kept else ""
        rows.append(
            f'<tr><td>{escape(one_line(kind.name, 60))}</td><td class="number">{kind.tried}</td>'
            f'<td class="number">{kind.kept}</td><td class="number">{gain}</td><td>{bar}</td></tr>'
        )
    names = ("tried", "kept", "bits per byte")
    head = f"<tr><th>kind</th>{''.join(f'<th class=number>{name}</th>' for name in names)}<th></th></tr>"
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>' if rows else ""


def _cost(history: History) -> str:
    cost = history.cost
    cards = (
        (amount(cost["runs"]), "training runs"),
        (f"{cost['hours']:.2f} h", "in all"),
        (f"{cost['training_hours']:.2f} h", "of them training"),
        (amount(cost["tokens"]), "tokens trained on"),
    )
    return '<div class="cards">' + "".join(_card(value, name) for value, name in cards) + "</div>"


def _holdout(history: History) -> str:
    if not history.holdout:
        return ""
    rows = "".join(
        f'<tr><td>{escape(key.replace("_", " "))}</td><td class="number">{escape(_number(value))}</td></tr>'
        for key, value in history.holdout.items()
    )
    return f"<table><tbody>{rows}</tbody></table>"


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _image(plot: Plot) -> str:
    data = base64.b64encode(plot.path.read_bytes()).decode()
    return f'<img alt="{escape(plot.heading)}" src="data:image/png;base64,{data}">'


_COLUMNS = (
    ("#", "number"),
    ("status", ""),
    ("val_bpb", "number"),
    ("hypothesis", ""),
    ("kind", ""),
    ("seeds", "number"),
    ("steps", "number"),
    ("memory", "number"),
    ("time", "number"),
    ("lines", "number"),
)


def _table(history: History) -> str:
    head = "".join(f'<th class="{kind}"><button>{name}</button></th>' for name, kind in _COLUMNS)
    statuses = [s for s in STATUS_NAMES if any(r.status == s for r in history.decided)]
    buttons = "".join(f'<button data-filter="{s}" aria-pressed="true">{STATUS_NAMES[s]}</button>' for s in statuses)
    search = '<input id="search" type="search" placeholder="search" aria-label="search">'
    rows = "\n".join(_row(history, record) for record in history.decided)
    return (
        f'<div class="controls">{buttons}{search}</div><div class="wide"><table id="experiments">'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _row(history: History, record: Record) -> str:
    trials = record.trials
    memory = max((t.peak_memory_mb for t in trials), default=0.0)
    steps = max((t.steps for t in trials), default=0)
    value = "" if record.val_bpb is None else f"{record.val_bpb:.4f}"
    cells = [
        _cell(record.number, str(record.number)),
        f'<td data-v="{record.status}"><span class="tag {record.status}">{record.status}</span></td>',
        _cell(value, value),
        f'<td class="what" data-v="{escape(one_line(record.hypothesis, 80))}">{_story(history, record)}</td>',
        f'<td data-v="{escape(one_line(record.kind, 40))}">{escape(one_line(record.kind, 40))}</td>',
        _cell(len(trials), str(len(trials))),
        _cell(steps or "", str(steps or "")),
        _cell(memory or "", f"{memory / 1024:.1f} GB" if memory else ""),
        _cell(round(record.seconds, 1), duration(record.seconds)),
        _cell(record.insertions + record.deletions, f"+{record.insertions} -{record.deletions}"),
    ]
    return f'<tr id="e{record.number}" data-status="{record.status}">{"".join(cells)}</tr>'


def _cell(key: object, shown: str) -> str:
    return f'<td class="number" data-v="{key}">{shown}</td>'


def _story(history: History, record: Record) -> str:
    """All details of one experiment, folded under its hypothesis."""
    parts = [f"<summary>{escape(one_line(record.hypothesis)) or 'no hypothesis'}</summary>"]
    if record.reason:
        parts.append(f"<p>{escape(one_line(record.reason, 300))}</p>")
    facts = [f"commit {record.commit[:10]}"] if record.commit else []
    facts += [f"by {record.proposer}"] if record.proposer else []
    facts += [f"seed {t.seed}: {f'{t.val_bpb:.4f}' if t.seed in record.values else 'no result'}" for t in record.trials]
    if facts:
        parts.append(f'<p class="quiet">{escape(one_line(" · ".join(facts), 400))}</p>')
    if record.overrides:
        parts.append(_pre(dump_yaml(record.overrides)))
    if diff := history.diff(record):
        parts.append(_coloured(diff))
    return f"<details>{''.join(parts)}</details>"


def _pre(text: str) -> str:
    return f"<pre>{escape(text[:_DIFF_CHARS]).rstrip()}</pre>"


def _coloured(diff: str) -> str:
    lines = diff[:_DIFF_CHARS].split("\n")
    shown = "\n".join(_line(line) for line in lines[:_DIFF_LINES]).rstrip()
    if len(lines) > _DIFF_LINES or len(diff) > _DIFF_CHARS:
        shown += f'\n<span class="hunk">… the rest is in {DIFF} in the folder of the experiment</span>'
    return f"<pre>{shown}</pre>"


def _line(line: str) -> str:
    kind = "hunk" if line.startswith(("+++", "---", "diff ", "index ")) else _CLASSES.get(line[:1], "")
    text = escape(line)
    return f'<span class="{kind}">{text}</span>' if kind else text
