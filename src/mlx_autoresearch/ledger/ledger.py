"""The ledger: one JSON line per experiment, appended and fsynced. What is not in it did not happen."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.methods import CURRENT, FIRST, Methods

from .files import TABLE
from .held import HeldFile

Event = Literal["baseline", "experiment", "remeasure", "demote"]
Status = Literal["keep", "discard", "crash", "timeout", "rejected"]

LONGEST_REASON = 500  # characters of `Record.reason`

_TSV_HEADER = "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"


@dataclass(frozen=True)
class Trial:
    """One training run with one seed.

    val_bpb: bits per byte; NaN where the ledger of an earlier version has null. peak_memory_mb: MiB, by MLX's count.
    num_params_M: millions. run: the run's folder relative to the home, "" once it has been deleted.
    """

    seed: int
    val_bpb: float
    steps: int
    tokens: int
    training_seconds: float
    total_seconds: float
    peak_memory_mb: float
    num_params_M: float
    run: str


@dataclass(frozen=True)
class Record:
    """One decided experiment, or what became known of a kept one afterwards.

    number: 0 for the baseline, 1 ... for experiments; a "remeasure" carries the number of the kept experiment that it
    measured again, a "demote" that of the one which is no longer the best: its parent is from then on. time: ISO 8601,
    UTC. commit, parent: full hashes. overrides: dotted configuration keys changed against the parent. val_bpb: mean
    over trials, None without one. seconds: wall time of the whole experiment, in a search without the time that its
    trials waited for the device. methods: by which it was measured. confirmed: whether its gain was found on the
    confirmation text, too; None where that was not asked. simpler: kept as equal with less code, not for a gain.
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
    methods: Methods = CURRENT
    confirmed: bool | None = None
    simpler: bool = False

    @property
    def decides(self) -> bool:
        """Whether it is the baseline or an experiment, and not about an earlier one."""
        return self.event in ("baseline", "experiment")

    @property
    def values(self) -> dict[int, float]:
        """val_bpb of the trials by seed, without trials that have none."""
        return {trial.seed: trial.val_bpb for trial in self.trials if math.isfinite(trial.val_bpb)}


def measured(trials: Sequence[Trial], seconds: float) -> dict[str, Any]:
    """A record's fields that trials decide: them, their mean val_bpb, the time now, and the `seconds` they took."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "trials": list(trials),
        "val_bpb": fmean(trial.val_bpb for trial in trials) if trials else None,
        "seconds": seconds,
    }


def best_of(records: Sequence[Record]) -> Record | None:
    """The kept record that the branch stands on: the last that was kept, or what a demotion fell back to."""
    kept: dict[str, Record] = {}
    best = None
    for record in records:
        if record.event == "demote":
            best = kept[record.parent]
        elif record.decides and record.status == "keep":
            best = kept[record.commit] = record
    return best


def decided(records: Sequence[Record]) -> list[Record]:
    """The baseline and the experiments in order, each as it stands now: one that was demoted counts as discarded."""
    demoted = {r.number: r for r in records if r.event == "demote"}
    return [
        replace(r, status="discard", reason=demoted[r.number].reason) if r.number in demoted else r
        for r in records
        if r.decides
    ]


class Ledger:
    """An append-only file of records at `path`, and `results.tsv` beside it, in the reference's five columns.

    The file is read once, at first use, and held in memory. A file that something else has changed since then is put
    back before the next record is appended: what it says is never believed.
    """

    def __init__(self, path: str | Path, *, surely: Callable[[Callable[[], object]], object] = lambda write: write()):
        """surely: how a record is written; it may wait for a full disk, and try again."""
        self.path = Path(path)
        self._surely = surely
        self._file = HeldFile(self.path)
        self._records: list[Record] | None = None
        self._table: HeldFile | None = None  # once this process has written it

    @property
    def is_read(self) -> bool:
        """Whether the file has been read."""
        return self._records is not None

    def records(self) -> list[Record]:
        """All records, in order. Raises what `read` raises."""
        return list(self.read() if self._records is None else self._records)

    def read(self) -> list[Record]:
        """Read the file, again where it has been read: another process may append to a sweep's ledger, under its lock.

        A line cut short by a power cut is passed over. Raises UserError for a line that is whole but is no record.
        """
        records = []
        for number, line in enumerate(self._file.read().split(b"\n"), 1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except ValueError:  # torn: never acknowledged, so it did not happen
                continue
            try:
                trials = [Trial(**_measured_or_nan(trial)) for trial in values["trials"]]
                methods = Methods(**values["methods"]) if "methods" in values else FIRST
                records.append(Record(**values | {"trials": trials, "methods": methods}))
            except (AttributeError, KeyError, TypeError) as error:
                raise UserError(f"{self.path} line {number} is not a record of this version: {error}") from None
        self._records = records
        return list(records)

    def append(self, record: Record) -> None:
        """Write one record; it is on the disk when this returns. A torn line before it is left behind, alone.

        Raises ValueError for a decision that is there already: one number is decided once.
        """
        records = self.records()
        if record.decides and any(r.number == record.number and r.decides for r in records):
            raise ValueError(f"[Ledger] experiment {record.number} is in {self.path} already")
        line = json.dumps(asdict(record), allow_nan=False).encode() + b"\n"
        torn = self._file.content and not self._file.content.endswith(b"\n")
        self._surely(lambda: self._file.append(b"\n" + line if torn else line))
        self._records = [*records, record]
        self._surely(self.write_tsv)

    def restore(self) -> list[str]:
        """Put the file, and the table, back where something else has changed or replaced them; the names of those."""
        self.records()
        files = [self._file, *([self._table] if self._table else [])]
        return [file.path.name for file in files if file.restore()]

    def best(self) -> Record | None:
        """The kept record that the branch stands on."""
        return best_of(self.records())

    def write_tsv(self) -> None:
        """Derive `results.tsv` anew: a row an experiment, none for a remeasurement; a demoted one counts as discarded.

        Columns as in karpathy/autoresearch: a crash has 0.000000 bits and 0.0 GB.
        """
        rows = []
        for record in decided(self.records()):
            memory = max((trial.peak_memory_mb for trial in record.trials), default=0.0) / 1024
            status = record.status if record.status in ("keep", "discard") else "crash"
            bits = 0.0 if record.val_bpb is None else record.val_bpb
            text = " ".join(record.hypothesis.split())
            rows.append(f"{record.commit[:7]}\t{bits:.6f}\t{memory:.1f}\t{status}\t{text}\n")
        self._table = self._table or HeldFile(self.path.with_name(TABLE))
        self._table.write((_TSV_HEADER + "".join(rows)).encode())


def _measured_or_nan(trial: dict[str, Any]) -> dict[str, Any]:
    return trial | {"val_bpb": math.nan} if trial.get("val_bpb") is None else trial
