"""A toy kernel in files, with a header and cases of one's own."""

from __future__ import annotations

from pathlib import Path

from mlx_autoresearch.kernels.description import KernelFile
from mlx_autoresearch.kernels.mutation.mutants import Mutant, mutants
from mlx_autoresearch.kernels.source import load_kernel

ROW_SUMS = """
const int lane = int(thread_index_in_simdgroup), n = x_shape[1], row = int(threadgroup_position_in_grid.y);
float sum = 0.0f;
for (int i = lane; i < n; i += 32)
  sum += float(x[row * n + i]);
sum = simd_sum(sum);
if (lane == 0)
  y[row] = T(sum);
"""
WEAK, STRONG = "{n: 32}", "{n: 101, rows: 3, dtype: float16}"


def toy(folder: Path, *cases: str, body: str = ROW_SUMS, header: str = "") -> KernelFile:
    """A kernel that sums rows, or another body with the same arguments."""
    (folder / "toy.metal").write_text(f"{header}\n// kernel body\n{body}")
    (folder / "toy.py").write_text("def definition(x):\n    return {'y': x.sum(axis=1)}\n")
    listed = "".join(f"  - {case}\n" for case in cases or (WEAK,))
    (folder / "toy.yaml").write_text(
        "inputs:\n  x: {dtype: dtype, shape: [rows, n], min_elements: 8}\n"
        "outputs:\n  y: {dtype: dtype, shape: [rows]}\ntemplate: {T: dtype}\n"
        "grid: [32, rows, 1]\nthreadgroup: [32, 1, 1]\ntolerance: 2.0e-6\n"
        f"defaults: {{rows: 1, dtype: float32}}\ncases:\n{listed}"
    )
    return load_kernel(folder / "toy.metal")


def changes(file: KernelFile) -> set[tuple[str, str, str]]:
    """Of every mutant the operator, what was there, and what is there now."""
    return {(mutant.operator, *mutant.change) for mutant in mutants(file)[0]}


def the_mutant(file: KernelFile, operator: str, was: str, now: str) -> Mutant:
    """The first one with this change."""
    return next(m for m in mutants(file)[0] if (m.operator, *m.change) == (operator, was, now))
