from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.ledger.ledger import Ledger
from mlx_autoresearch.methods import CURRENT, FIRST
from tests.support.mac import file_control
from tests.support.records import RECORD, TRIAL


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


def test_records_from_before_methods_were_recorded_have_the_first(ledger: Ledger) -> None:
    ledger.append(RECORD)
    values = json.loads(ledger.path.read_text())
    assert values["methods"] == asdict(CURRENT)
    ledger.path.write_text(json.dumps({key: value for key, value in values.items() if key != "methods"}) + "\n")
    assert Ledger(ledger.path).records() == [replace(RECORD, methods=FIRST)]
    ledger.path.write_text(json.dumps(values | {"methods": {"other": 1}}) + "\n")
    with pytest.raises(UserError, match="is not a record of this version"):
        Ledger(ledger.path).records()


@pytest.mark.parametrize("cut", [1, 40, -2, -1])
def test_a_torn_last_line_did_not_happen_and_does_not_hurt_the_next(ledger: Ledger, cut: int) -> None:
    ledger.append(RECORD)
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole + whole[:cut].replace(b"\n", b""))
    if cut == -1:  # only the newline is missing: the record is whole, and counts once
        ledger.path.write_bytes(whole[:-1])
    ledger = Ledger(ledger.path)
    assert ledger.records() == [RECORD]
    ledger.append(replace(RECORD, number=2))
    assert [r.number for r in ledger.records()] == [r.number for r in Ledger(ledger.path).records()] == [1, 2]


def test_on_macos_an_append_waits_for_the_drive_itself(ledger: Ledger, mac: None) -> None:
    ledger.append(RECORD)
    before = file_control.calls[file_control.F_FULLFSYNC]
    ledger._file.append(b"\n")
    assert file_control.calls[file_control.F_FULLFSYNC] == before + 1


def test_an_experiment_is_decided_once(ledger: Ledger) -> None:
    ledger.append(RECORD)
    with pytest.raises(ValueError, match="experiment 1 is in"):
        ledger.append(RECORD)
    ledger.append(replace(RECORD, event="remeasure"))
    assert len(ledger.records()) == 2


@pytest.mark.parametrize("line", [{"number": 1}, {"number": 1, "trials": [3]}, {"trials": 3}, [1], "text", 3])
def test_a_line_of_another_version_is_named(ledger: Ledger, line: object) -> None:
    ledger.path.write_text(json.dumps(line) + "\n")
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


def test_a_trial_without_a_value_in_an_old_ledger_still_loads(ledger: Ledger) -> None:
    old = asdict(replace(RECORD, trials=[TRIAL, replace(TRIAL, seed=43)]))
    old["trials"][1]["val_bpb"] = None
    ledger.path.write_text(json.dumps(old) + "\n")
    [record] = ledger.records()
    assert len(record.trials) == 2
    assert record.values == {42: 2.5}


def test_a_remeasurement_is_not_one_more_keep_in_the_table(ledger: Ledger) -> None:
    ledger.append(RECORD)
    ledger.append(replace(RECORD, event="remeasure", val_bpb=2.6))
    assert len((ledger.path.parent / "results.tsv").read_text().splitlines()) == 2


def forge(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"val_bpb": 2.5', b'"val_bpb": 9.5'))


ALTERATIONS: dict[str, Callable[[Path], object]] = {
    "changed": forge,
    "truncated": lambda path: os.truncate(path, 100),
    "emptied": lambda path: path.write_bytes(b""),
    "appended": lambda path: path.write_bytes(2 * path.read_bytes()),
    "deleted": lambda path: path.unlink(),
    "a link": lambda path: (path.rename(path.with_name("away")), path.symlink_to("away")),
    "a broken link": lambda path: (path.unlink(), path.symlink_to("nowhere")),
    "a folder": lambda path: (path.unlink(), path.mkdir(), (path / "x").touch()),
}


@pytest.mark.parametrize("alter", ALTERATIONS.values(), ids=ALTERATIONS)
def test_an_altered_file_is_put_back_and_never_believed(ledger: Ledger, alter: Callable[[Path], object]) -> None:
    ledger.append(RECORD)
    honest = ledger.path.read_bytes()
    alter(ledger.path)
    assert ledger.records() == [RECORD]
    ledger.append(replace(RECORD, number=2))
    assert not ledger.path.is_symlink()
    assert ledger.path.read_bytes().startswith(honest)
    assert Ledger(ledger.path).records() == ledger.records() == [RECORD, replace(RECORD, number=2)]
    alter(ledger.path)
    assert (ledger.restore(), ledger.restore()) == (["ledger.jsonl"], [])
    assert Ledger(ledger.path).records() == ledger.records()


def test_a_file_that_was_not_there_is_taken_away(ledger: Ledger) -> None:
    assert ledger.records() == []
    assert not ledger.restore()
    ledger.path.write_text(json.dumps(asdict(RECORD)) + "\n")
    assert ledger.restore()
    assert not ledger.path.exists()


def test_a_shared_ledger_is_read_again(ledger: Ledger) -> None:
    assert ledger.records() == []
    Ledger(ledger.path).append(RECORD)
    assert ledger.read() == [RECORD]
    ledger.append(replace(RECORD, number=2))
    assert len(Ledger(ledger.path).records()) == 2
