"""The ledger: one JSON line per experiment, appended and fsynced. What is not in it did not happen."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.machine.files import sync_folder, write_atomically

Event = Literal["baseline", "experiment", "remeasure"]
Status = Literal["keep", "discard", "crash", "timeout", "rejected"]

_TSV_HEADER = "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"


@dataclass(frozen=True)
class Trial:
    """One training run of an experiment.

    val_bpb: bits per byte, None where the run gave none. peak_memory_mb: MiB, by MLX's count. num_params_M: millions.
    run: the run's folder relative to the research's home, "" once it has been deleted.
    """

    seed: int
    val_bpb: float | None
    steps: int
    tokens: int
    training_seconds: float
    total_seconds: float
    peak_memory_mb: float
    num_params_M: float
    run: str


@dataclass(frozen=True)
class Record:
    """One decided experiment.

    number: 0 for the baseline, 1 ... for experiments; a "remeasure" carries the number of the kept experiment that it
    measured again. time: ISO 8601, UTC. commit, parent: full hashes. overrides: dotted configuration keys changed
    against the parent. val_bpb: mean over trials, None without one. seconds: wall time of the whole experiment.
    """

    number: int
    event: Event
    time: str
    commit: str
    parent: str
    hypothesis: str
    proposer: str
    kind: str
    files: list[str]
    insertions: int
    deletions: int
    overrides: dict[str, Any]
    trials: list[Trial] = field(default_factory=list)
    val_bpb: float | None = None
    status: Status = "discard"
    reason: str = ""
    seconds: float = 0.0


class Ledger:
    """An append-only file of records at `path`, and `results.tsv` beside it, in the reference's five columns."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def append(self, record: Record) -> None:
        """Write one record; it is on the disk when this returns. A torn line before it is left behind, alone.

        Raises ValueError for a decision that is there already: one number is decided once.
        """
        if record.event != "remeasure" and any(
            r.number == record.number and r.event != "remeasure" for r in self.records()
        ):
            raise ValueError(f"[Ledger] experiment {record.number} is in {self.path} already")
        line = json.dumps(asdict(record), allow_nan=False).encode() + b"\n"
        new = not self.path.exists()
        with self.path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync_folder(self.path.parent)
        self.write_tsv()

    def records(self) -> list[Record]:
        """All records, in order. A line cut short by a power cut is passed over.

        Raises UserError for a line that is whole but is no record.
        """
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        records = []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except ValueError:  # torn: never acknowledged, so it did not happen
                continue
            try:
                records.append(Record(**values | {"trials": [Trial(**trial) for trial in values["trials"]]}))
            except (KeyError, TypeError) as error:
                raise UserError(f"{self.path} line {number} is not a record of this version: {error}") from None
        return records

    def write_tsv(self) -> None:
        """Derive `results.tsv` anew. Columns as in karpathy/autoresearch: a crash has 0.000000 bits and 0.0 GB."""
        rows = []
        for record in self.records():
            memory = max((trial.peak_memory_mb for trial in record.trials), default=0.0) / 1024
            status = record.status if record.status in ("keep", "discard") else "crash"
            text = " ".join(record.hypothesis.split())
            rows.append(f"{record.commit[:7]}\t{record.val_bpb or 0.0:.6f}\t{memory:.1f}\t{status}\t{text}\n")
        write_atomically(self.path.with_name("results.tsv"), _TSV_HEADER + "".join(rows))

    def best(self) -> Record | None:
        """The kept record that the branch stands on: the last one."""
        return next((r for r in reversed(self.records()) if r.status == "keep" and r.event != "remeasure"), None)
