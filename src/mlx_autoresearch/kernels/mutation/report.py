"""What mutation testing a kernel gave, as text and as data; and the survivors that somebody has explained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from mlx_autoresearch.config.yaml_text import parse_yaml, read_text
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels.description import KernelFile

from .mutants import Mutant, mutants, sample
from .running import Outcome, run_mutants

_WIDTH, _ANY = 80, "*"


class Explanation(BaseModel):
    """Why a mutant may survive: of the kernels that match `kernel`, on `line`, where `was` becomes one of `now`.

    A star stands for anything that was, or is now, on the line.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kernel: str  # a name, or a pattern such as flash_attention_*
    line: str
    was: str
    now: list[str]
    reason: str

    def explains(self, mutant: Mutant) -> bool:
        """Whether it is about this mutant."""
        was, now = mutant.change
        if not fnmatchcase(mutant.file.name, self.kernel) or self.was not in (was, _ANY):
            return False
        return not {now, _ANY}.isdisjoint(self.now) and _words(mutant.line) == _words(self.line)


def _words(text: str) -> str:
    return " ".join(text.split())


def read_explanations(path: Path) -> list[Explanation]:
    """A YAML list of explanations. Raises UserError for anything else."""
    try:
        given = parse_yaml(read_text(path, "list of explained mutants", "custom_kernels/README.md shows one"))
        return TypeAdapter(list[Explanation]).validate_python(given or [])
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


@dataclass(frozen=True)
class MutationReport:
    """The outcomes of a kernel's mutants; `unread` are places of its text that were not understood, and not changed."""

    name: str
    outcomes: Sequence[Outcome]
    unread: Sequence[tuple[str, int]]
    explanations: Sequence[Explanation] = ()

    def explanation(self, outcome: Outcome) -> Explanation | None:
        """That of a survivor."""
        return next((given for given in self.explanations if given.explains(outcome.mutant)), None)

    @property
    def survivors(self) -> list[Outcome]:
        """Those that nothing found and nobody has explained."""
        return [o for o in self.outcomes if o.verdict == "survived" and not self.explanation(o)]

    @property
    def explained(self) -> list[Outcome]:
        """Those that nothing found, as somebody has explained."""
        return [o for o in self.outcomes if o.verdict == "survived" and self.explanation(o)]

    @property
    def counts(self) -> dict[str, int]:
        """How many had which verdict."""
        verdicts = Counter(outcome.verdict for outcome in self.outcomes)
        return {
            "mutants": len(self.outcomes) - verdicts["same code"] - verdicts["does not compile"],
            "found": verdicts["found"],
            "explained": len(self.explained),
            "survived": len(self.survivors),
            "same code": verdicts["same code"],
            "does not compile": verdicts["does not compile"],
        }

    @property
    def findings(self) -> dict[str, int]:
        """How many were found by which kind of finding, the most frequent first."""
        return dict(Counter(outcome.finding for outcome in self.outcomes if outcome.finding).most_common())

    def data(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kernel": self.name,
            **{name.replace(" ", "_"): count for name, count in self.counts.items()},
            "findings": self.findings,
            "survivors": [_data(outcome.mutant) for outcome in self.survivors],
            "explanations": [
                {**_data(outcome.mutant), "reason": given.reason}
                for outcome in self.explained
                if (given := self.explanation(outcome))
            ],
            "unread": [f"{file}:{line}" for file, line in self.unread],
        }

    def text(self) -> str:
        """For people."""
        counts = self.counts
        lines = [f"{self.name}: {counts['found']} of {counts['mutants']} mutants found"]
        others = [f"{count} {name}" for name, count in list(counts.items())[2:] if count]
        lines += [f"  {', '.join(others)}"] if others else []
        lines += [f"  {count:4} {what}" for what, count in self.findings.items()]
        lines += [line for outcome in self.survivors for line in _lines(outcome.mutant)]
        lines += [f"  not understood, not changed: {file}:{line}" for file, line in self.unread]
        return "\n".join(lines)


def mutation_test(
    file: KernelFile,
    count: int | None,
    seed: int = 0,
    explanations: Sequence[Explanation] = (),
    compiler: str | None = None,
) -> MutationReport:
    """Runs `count` mutants of a kernel, or all of them if it is None. Raises UserError if the kernel is not right."""
    found, unread = mutants(file)
    drawn = found if count is None else sample(found, count, seed)
    return MutationReport(file.name, list(run_mutants(file, drawn, compiler)), unread, explanations)


def _data(mutant: Mutant) -> dict[str, Any]:
    file, line = mutant.place
    was, now = mutant.change
    return {"file": file, "line": line, "text": mutant.line, "operator": mutant.operator, "was": was, "now": now}


def _lines(mutant: Mutant) -> list[str]:
    """A survivor, on one line if it fits."""
    file, line = mutant.place
    was, now = mutant.change
    head = f"  survived: {file}:{line} {mutant.operator}"
    one = f"{head}: {was} -> {now}"
    return [one] if len(one) <= _WIDTH else [head, f"    {was}", f"    -> {now}"]
