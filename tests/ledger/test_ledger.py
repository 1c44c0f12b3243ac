from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.ledger.ledger import Ledger, Record, Trial

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


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl")


def test_records_come_back_as_they_were(ledger: Ledger) -> None:
    assert ledger.records() == []
    second = replace(RECORD, number=2, status="crash", val_bpb=None, trials=[])
    ledger.append(RECORD)
    ledger.append(second)
    assert Ledger(ledger.path).records() == [RECORD, second]
    assert ledger.best() == RECORD


@pytest.mark.parametrize("cut", [1, 40, -2, -1])
def test_a_torn_last_line_did_not_happen_and_does_not_hurt_the_next(ledger: Ledger, cut: int) -> None:
    ledger.append(RECORD)
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole + whole[:cut].replace(b"\n", b""))
    if cut == -1:  # only the newline is missing: the record is whole, and counts once
        ledger.path.write_bytes(whole[:-1])
    assert ledger.records() == [RECORD]
    ledger.append(replace(RECORD, number=2))
    assert [r.number for r in ledger.records()] == [1, 2]


def test_an_experiment_is_decided_once(ledger: Ledger) -> None:
    ledger.append(RECORD)
    with pytest.raises(ValueError, match="experiment 1 is in"):
        ledger.append(RECORD)
    ledger.append(replace(RECORD, event="remeasure"))
    assert len(ledger.records()) == 2


def test_a_line_of_another_version_is_named(ledger: Ledger) -> None:
    ledger.path.write_text(json.dumps({"number": 1}) + "\n")
    with pytest.raises(UserError, match="line 1 is not a record"):
        ledger.records()


def test_the_table_has_the_references_columns(ledger: Ledger) -> None:
    ledger.append(RECORD)
    ledger.append(replace(RECORD, number=2, status="timeout", val_bpb=None, trials=[], hypothesis="slow"))
    assert (ledger.path.parent / "results.tsv").read_text().splitlines() == [
        "commit\tval_bpb\tmemory_gb\tstatus\tdescription",
        "aaaaaaa\t2.500000\t0.5\tkeep\ta tab and a line",
        "aaaaaaa\t0.000000\t0.0\tcrash\tslow",
    ]
