"""Records of a ledger, made up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any

from mlx_autoresearch.ledger.ledger import Record, Trial

TRIAL = Trial(42, 2.5, 100, 10_000, 10.0, 12.0, 512.0, 1.5, "experiments/0001/42")
RECORD = Record(
    number=1,
    event="experiment",
    time="2026-01-01T00:00:00+00:00",
    commit="a" * 40,
    parent="b" * 40,
    hypothesis="a\ttab and\na line",
    proposer="search",
    kind="mlp",
    files=["research/experiment.yaml"],
    insertions=1,
    deletions=2,
    overrides={"model.mlp": "swiglu"},
    trials=[TRIAL],
    val_bpb=2.5,
    status="keep",
    reason="better",
    seconds=12.0,
)


def record(number: int, values: Mapping[int, float], **fields: Any) -> Record:
    """An experiment, or with number 0 the baseline, that measured these values by seed; val_bpb is their mean."""
    trials = [replace(TRIAL, seed=seed, val_bpb=value) for seed, value in values.items()]
    event = "experiment" if number else "baseline"
    return replace(
        RECORD, **{"number": number, "event": event, "trials": trials, "val_bpb": fmean(values.values())} | fields
    )
