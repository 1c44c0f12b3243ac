"""A kernel as `mx.fast.metal_kernel` takes it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mlx_autoresearch.errors import UserError


@dataclass(frozen=True)
class Kernel:
    """What `mx.fast.metal_kernel` is constructed with, and where findings should say that it stands.

    `source` is the body of the kernel, `header` what precedes it. Findings name `file` where there is one, and count
    lines from `source_line` and `header_line`; otherwise they name `<name>.metal` and `<name>.header`.
    """

    name: str
    input_names: Sequence[str]
    output_names: Sequence[str]
    source: str
    header: str = ""
    ensure_row_contiguous: bool = True
    atomic_outputs: bool = False
    file: str | None = None
    source_line: int = 1
    header_line: int = 1

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise UserError(f"simulator: the kernel's name must be an identifier, got {self.name!r}")
        object.__setattr__(self, "input_names", tuple(self.input_names))
        object.__setattr__(self, "output_names", tuple(self.output_names))

    @property
    def source_file(self) -> str:
        """What findings call the file of its body."""
        return self.file or f"{self.name}.metal"

    @property
    def header_file(self) -> str:
        """What findings call the file of its header."""
        return self.file or f"{self.name}.header"

    @property
    def files(self) -> set[str]:
        """Every file that a finding can name: those that #line directives name too."""
        included = re.findall(r'^#line \d+ "([^"]+)"$', self.header + "\n" + self.source, re.M)
        return {self.source_file, self.header_file, *included}
