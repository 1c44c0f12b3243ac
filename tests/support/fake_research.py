"""A made-up night of research: 126 experiments, 28 kept, 94 discarded, 4 without a result; diffs, curves and all."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from mlx_autoresearch.ledger.ledger import Ledger, Record, Trial

MOVES = [
    ("batch", "halve total_batch_size to 4096: twice the steps in the same time", "train.total_batch_size", 4096),
    ("learning rate", "raise matrix_lr to 0.06: few steps, so each should go further", "optimizer.matrix_lr", 0.06),
    ("mlp", "SwiGLU in place of ReLU²: gates learn faster", "model.mlp", "swiglu"),
    ("attention", "one key/value head: cheaper attention, more steps", "model.n_kv_head", 1),
    ("head", "drop the logit softcap: it saturates early", "model.softcap", None),
    ("schedule", "warm down over 30% of the run instead of 50%", "train.warmdown_ratio", 0.3),
    ("depth/width", "depth 3 at the same width", "model.depth", 3),
    ("embedding", "no norm after the token embedding", "model.embedding_norm", False),
    ("sequence", "rows of 256 tokens: more documents a step", "model.sequence_len", 256),
    ("momentum", "ramp Muon's momentum over 100 steps", "train.muon_momentum_steps", 100),
]
CRASHES = {17: "crash", 46: "timeout", 77: "crash", 103: "rejected"}


def write_research(home: Path, *, experiments: int = 126, kept: int = 28, seed: int = 0) -> Path:
    """Fill `home` as a finished research leaves it, and return it."""
    rng = random.Random(seed)
    home.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(home / "ledger.jsonl")
    open_numbers = [n for n in range(1, experiments + 1) if n not in CRASHES]
    wins = _wins(rng, open_numbers, min(kept, len(open_numbers)))
    best = 2.860
    goal, share = 2.231, 1.0
    lines = []
    for number in range(experiments + 1):
        move = rng.choice(MOVES)
        status: Any = "keep" if number == 0 or number in wins else CRASHES.get(number, "discard")
        value: float | None = None
        if number == 0:
            value = best
        elif status == "keep":
            share *= rng.uniform(0.72, 0.95)
            value = best = min(best - 0.0005, goal + (2.860 - goal) * share)
        elif status == "discard":
            value = best + abs(rng.gauss(0, 0.05)) + rng.random() ** 6 * 1.5 - 0.004
        seeds = 4 if number == 0 else 2 if status == "keep" else 1
        trials = []
        for i in range(seeds):
            if value is None:
                break
            run = f"experiments/{number:04d}/{42 + i}" if status == "keep" else ""
            measured = value + rng.gauss(0, 0.006)
            trials.append(Trial(42 + i, measured, 180, 1_474_560, 60.2, 71.5, 1209.7, 7.34, run))
            if run:
                _write_run(home / run, measured, rng)
        record = Record(
            number=number,
            event="experiment" if number else "baseline",
            time=f"2026-11-22T{(number * 3 // 60) % 24:02d}:{number * 3 % 60:02d}:00Z",
            commit=f"{rng.getrandbits(160):040x}",
            parent=f"{rng.getrandbits(160):040x}",
            hypothesis="the starting point" if number == 0 else move[1],
            proposer="search" if number else "",
            kind="" if number == 0 else move[0],
            files=["research/experiment.yaml"] if number else [],
            insertions=rng.randint(1, 9),
            deletions=rng.randint(1, 9),
            overrides={move[2]: move[3]} if number else {},
            trials=trials,
            val_bpb=value,
            status=status,
            reason=_reason(status),
            seconds=72.0 * seeds,
        )
        lines.append(record)
        folder = home / "experiments" / f"{number:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        if number:
            (folder / "diff.patch").write_text(_diff(rng, move))
    write_tsv, Ledger.write_tsv = Ledger.write_tsv, lambda self: None  # once is enough for 127 records
    try:
        for record in lines:
            ledger.append(record)
    finally:
        Ledger.write_tsv = write_tsv
    (home / "research.yaml").write_text("tag: nov22\nproposer: {kind: search}\n")
    return home


def _wins(rng: random.Random, numbers: list[int], kept: int) -> set[int]:
    """More of them early, as it goes."""
    wins: set[int] = set()
    while len(wins) < kept:
        wins.add(numbers[int(len(numbers) * rng.random() ** 1.7)])
    return wins


def _reason(status: str) -> str:
    return {
        "keep": "improves by more than noise explains, over 2 seeds",
        "discard": "worse than the best at seed 42",
        "crash": "NaN: the loss is NaN at step 12",
        "timeout": "ran longer than 120 s",
        "rejected": "guard: evaluate.py may not change",
    }[status]


def _write_run(folder: Path, end: float, rng: random.Random) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for step in range(1, 181):
        progress = (step - 1) / 180
        loss = 8.3 * math.exp(-6 * progress) + 2.6 * end * (1 - math.exp(-6 * progress)) + rng.gauss(0, 0.01)
        lines.append(json.dumps({"step": step, "progress": progress, "loss": loss, "smooth_loss": loss}))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "config.yaml").write_text("# derived: n_layer 4\nmodel:\n  depth: 4\ntrain:\n  seed: 42\n")


def _diff(rng: random.Random, move: tuple[str, str, str, Any]) -> str:
    section, key = move[2].split(".")
    extra = "".join(f"+    x = x + {rng.random():.4f}  # line {i}\n" for i in range(rng.choice([0, 0, 0, 30])))
    return (
        "diff --git a/research/experiment.yaml b/research/experiment.yaml\n--- a/research/experiment.yaml\n"
        f"+++ b/research/experiment.yaml\n@@ -3,4 +3,4 @@\n {section}:\n-  {key}: old\n+  {key}: {move[3]}\n" + extra
    )
