"""What a coding agent is told before each experiment: the goal, the rules, what has been tried, how to answer."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.ledger.files import OUTPUT, experiment_folder
from mlx_autoresearch.ledger.ledger import Record, decided
from mlx_autoresearch.ledger.standing import level, near_misses
from mlx_autoresearch.plain_text import as_data, one_line

from ..editable import EDITABLE, EXPERIMENT
from ..guard.rules import FROZEN
from ..handover import MOST_BYTES
from .base import Context

_NEAREST = 5  # near misses that are named
_SHOWN = 60  # the latest experiments; kept ones are shown however old they are


def write_brief(context: Context, most_seeds: int | None, minutes: float) -> str:
    """The brief as Markdown. What an agent or a trial printed is always quoted.

    most_seeds: of one candidate; None where one seed decides.
    """
    train = context.config.train
    budget = f"{train.max_steps} steps" if train.max_steps is not None else f"{train.time_budget:g} seconds"
    best = context.best
    rule = (
        "Any improvement at one seed is kept."
        if most_seeds is None
        else f"A change is kept only if it beats run-to-run noise, over up to {most_seeds} seeds."
    )
    return f"""# Experiment {context.number}: make val_bpb smaller

You are in a checkout of mlx_autoresearch, a GPT pretraining laboratory on MLX. A run trains the model for {budget} of
this machine and then measures val_bpb, validation bits per byte: lower is better. Make ONE change that you expect to
lower it, and stop: others will train, measure, and keep or discard it. Whatever fits in the budget goes: architecture,
optimizer, learning rates, schedule, batch size, size of the model, kernels.

The current best has val_bpb {_bpb(level(context.history, best))} (experiment {best.number}).

## Rules
- You may change these files only:
{_bullets(EDITABLE)}
  Text files of at most {MOST_BYTES:,} bytes; new files elsewhere are left out.
- In {EXPERIMENT} these keys must stay as they are:
{_bullets(FROZEN)}
- To add a setting, declare it in src/mlx_autoresearch/recipe/settings.py and set it in the section `recipe:` of
  {EXPERIMENT}.
- Do not touch git, other files, or anything outside this folder. Do not train; leave no process running.
- Code may import mlx and numpy under their usual names (mx, nn, optim, np), and what the files already import.
  Logits must not depend on later tokens.
- {rule} It is then confirmed on other text: what fits the validation text alone is
  rejected. A keep that later measurements do not bear out is taken back.
- Simpler is better: an equal result with less code is kept, where no settings change but those in `recipe:`. A tiny
  gain for much code is not worth it.
- Do not try again what failed below, unless the best has changed in a way that makes it new.{_near(context.history)}
- You have {minutes:g} minutes.

## Your answer
Edit the files. Then print, as your very last lines, what you expect and why, and the sort of change:

    HYPOTHESIS: one line, at most 150 characters, in plain words
    KIND: one of learning rate, schedule, batch, depth, width, attention, mlp, embedding, head, optimizer, kernel, other

## The best's configuration
{EXPERIMENT}: {_summary(context.config)}

{as_data(context.config.to_yaml(), "`mlx-autoresearch config`", 200)}

## What has been tried
{_history(context.history)}
{_last_crash(context)}"""


def read_answer(output: str) -> tuple[str, str]:
    """Hypothesis and kind: the last lines of what an agent printed that begin with HYPOTHESIS: and KIND:."""
    found = {"HYPOTHESIS": "no hypothesis given", "KIND": "code"}
    for line in output.splitlines():
        name, colon, text = line.strip().strip("*`> ").partition(":")
        if colon and name.strip("* ") in found and text.strip("* "):
            found[name.strip("* ")] = one_line(text.strip("*` "))
    return found["HYPOTHESIS"], one_line(found["KIND"].lower(), 40)


def _history(history: list[Record]) -> str:
    """One line an experiment: its number, fate, val_bpb, hypothesis, and why."""
    experiments = decided(history)
    shown = {r.number for r in experiments if r.status == "keep"} | {r.number for r in experiments[-_SHOWN:]}
    lines = [
        " | ".join(
            [
                str(r.number),
                r.status,
                _bpb(r.val_bpb),
                one_line(r.hypothesis, 150),
                _changed(r),
                one_line(r.reason, 150),
            ]
        )
        for r in experiments
        if r.number in shown
    ]
    heading = "number | fate | val_bpb | hypothesis | what changed | why"
    return as_data("\n".join([heading, *lines]), "earlier experiments", len(lines) + 1)


def _last_crash(context: Context) -> str:
    """The last lines of what the latest experiment printed, if that crashed."""
    last = context.history[-1] if context.history else None
    if last is None or last.status not in ("crash", "timeout"):
        return ""
    output = experiment_folder(context.folder.parents[1], last.number) / OUTPUT
    return "\n" + as_data(_read(output), f"experiment {last.number}", 30) + "\n" if output.is_file() else ""


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")[-8000:]


def _changed(record: Record) -> str:
    keys = [f"{key}={json.dumps(value)}" for key, value in record.overrides.items()]
    code = [f"{path} " for path in record.files if path != EXPERIMENT]
    lines = f"(+{record.insertions} -{record.deletions})" if code else ""
    return one_line(", ".join(keys) + (", " if keys and code else "") + "".join(code) + lines, 150)


def _summary(config: Config) -> str:
    gpt = config.gpt_config()
    return (
        f"{gpt.n_layer} layers, n_embd {gpt.n_embd}, {gpt.n_head} heads of {gpt.head_dim}, "
        f"{config.train.total_batch_size} tokens a step."
    )


def _near(history: list[Record]) -> str:
    """The near misses of earlier bests."""
    numbers = ", ".join(str(r.number) for r in near_misses(history)[:_NEAREST])
    if not numbers:
        return ""
    return (
        f"\n- Near misses, better than the best of their time but within noise: {numbers}. The best has changed since, "
        "so\n  they are worth another try."
    )


def _bpb(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _bullets(items: Iterable[str]) -> str:
    return "\n".join(f"  - {item}" for item in items)
