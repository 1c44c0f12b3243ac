"""Reads tests/simulator/mutations.yaml: the table of planted bugs and correct controls."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from mlx_autoresearch.kernels.description import KernelFile
from mlx_autoresearch.kernels.source import load_kernel, split_source

_ROOM = Path(__file__).parents[1] / "simulator"
KERNELS = _ROOM / "kernels"


@dataclass(frozen=True)
class Mutation:
    kernel: str
    name: str
    finds: str | None  # a finding's `what`; None: correct, must stay silent
    edits: list[list[Any]]
    sizes: dict[str, Any]
    clang_only: bool
    seconds: float

    @property
    def id(self) -> str:
        return f"{self.kernel}: {self.name}"

    def apply(self) -> tuple[KernelFile, dict[str, Any]]:
        """The kernel with its edits, and the sizes to run it at: its only case."""
        path = KERNELS / f"{self.kernel}.metal"
        file, text = load_kernel(path), path.read_text(encoding="utf-8")
        for old, new, *nth in self.edits:
            count = nth[0] if nth else 1
            pieces = text.split(old)
            assert len(pieces) > count, f"{self.id}: {old!r} does not occur {count} time(s)"
            text = old.join(pieces[:count]) + new + old.join(pieces[count:])
        header, body, line = split_source(text)
        sizes = self.sizes or file.description.cases[0]
        kernel = replace(file.kernel, source=body, header=header, source_line=line)
        return replace(file, kernel=kernel, description=file.description.model_copy(update={"cases": [sizes]})), sizes


def read_mutations() -> list[Mutation]:
    table = yaml.safe_load((_ROOM / "mutations.yaml").read_text(encoding="utf-8"))
    return [
        Mutation(
            kernel,
            row.get("bug") or row["control"],
            row["finds"] if "bug" in row else None,
            row.get("edits", []),
            row.get("sizes", {}),
            row.get("clang_only", False),
            row.get("seconds", 30.0),
        )
        for kernel, rows in table.items()
        for row in rows
    ]
