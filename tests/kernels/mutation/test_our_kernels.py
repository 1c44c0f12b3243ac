"""A mutant of each of our kernels that the case named here finds; and every explained survivor is one of today's.

All of them: `mlx-autoresearch kernels mutate --explained tests/kernels/equivalent_mutants.yaml`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlx_autoresearch.config.yaml_text import parse_yaml
from mlx_autoresearch.kernels.mutation.mutants import mutants
from mlx_autoresearch.kernels.mutation.report import read_explanations
from mlx_autoresearch.kernels.registry import find_kernel, kernel_names
from mlx_autoresearch.kernels.verify import SEEDS, run_case
from tests.support.compiler_paths import needs_clang

EXPLAINED = Path(__file__).parents[1] / "equivalent_mutants.yaml"
# Kernel, operator, what was there, how begins what is there now; the case of the kernel's YAML that finds it.
FOUND = [
    ("embedding_forward", "loop-round", "Pack<T, N>::store(to + i, values);",
     "if (i != (lane * N) + (32 * N) + (32 * N))", "{C: 100, rows: 9, V: 300, dtype: bfloat16}"),
    ("embedding_backward", "loop-round", "Pack<T, N>::load(dy + long(order[i]) * C + column, values);",
     "if (i != (begin + part) + (PARTS) + (PARTS))", "{C: 40, rows: 150, V: 2, dtype: bfloat16}"),
    ("rope", "loop-round", "Pack<T, N>::store(to + HALF, b + j);",
     "if (j != (0) + (N) + (N))", "{T: 5, B: 2, N: 2, LANES: 1, dtype: bfloat16}"),
    ("norm_rope_forward", "rounding", "row_sum<LANES>(squares)",
        "float(T(", "{T: 4, B: 2, N: 2, LANES: 4, dtype: float16, spread: 400}"),
    ("norm_rope_backward", "rounding", "row_sum<LANES>(squares)",
     "float(T(", "{T: 4, B: 2, N: 2, LANES: 4, dtype: float16, spread: 400}"),
    ("residual_norm_forward", "loop-round", "store_part<N, VALUES>(s + start, C, first, v);",
     "if (chunk != (0) + 1 + 1)", "{C: 290, rows: 9, chunks: 3}"),
    ("residual_norm_backward", "rounding", "simd_sum(squares)",
     "float(T(", "{C: 70, N: 1, dtype: float16, spread: 0.0003}"),
    ("mixed_norm_backward", "loop-round", "load_part<N, VALUES>(y + start, C, first, w);",
     "if (chunk != (0) + 1 + 1)", "{C: 290, rows: 9, chunks: 3}"),
    ("softcapped_cross_entropy_forward", "min-max", "simd_max(other_top)", "simd_min(other_top)",
     "{V: 100, threads: 96, masked: 0.95, spread: 100, softcap: 0, capped: false}"),
    ("softcapped_cross_entropy_backward", "loop-round", "Pack<T, N>::store(d_z + i, values + j);",
     "if (j != (0) + (N) + (N))", "{V: 130, N: 2, dtype: float16, masked: 0.8}"),
    ("softcapped_cross_entropy_loss_and_gradient", "constant", "16", "15",
     "{V: 2600, N: 2, threads: 512, chunks: 1, dtype: bfloat16, softcap: 0, capped: false, center: -300}"),
    ("newton_schulz_gram", "loop-round", "add_product<T, ACROSS, ACROSS>(quarter, left, right);",
     "if (k0 != (0) + (DEPTH) + (DEPTH))", "{m: 200, n: 100, N: 3}"),
    ("newton_schulz_polynomial", "loop-round", "add_product<T, false, false>(quarter, left, right);",
     "if (k0 != (0) + (DEPTH) + (DEPTH))", "{n: 100, N: 3}"),
    ("newton_schulz_combination", "loop-round", "add_product<T, TALL, false>(quarter, left, right);",
     "if (k0 != (0) + (DEPTH) + (DEPTH))", "{m: 200, n: 100, N: 2}"),
    ("flash_attention_forward", "one-case", "head / (heads / kv_heads)", "(metal::is_same_v<T, bfloat16_t> && D == 96",
     "{T: 66, B: 2, Hk: 2, group: 2, D: 96, window: 20, dtype: bfloat16}"),
    ("flash_attention_dq", "one-case", "long(batch) * length * kv_heads", "(metal::is_same_v<T, bfloat16_t> && D == 96",
     "{T: 66, B: 2, Hk: 2, group: 2, D: 96, window: 20, dtype: bfloat16}"),
    ("flash_attention_dkdv", "one-case", "kv_head * group + next / tiles", "(metal::is_same_v<T, float> && D == 128",
     "{T: 65, B: 2, Hk: 2, group: 2, D: 128, window: 20}"),
    ("flash_attention_dkdv_pairs", "one-case", "kv_head * group + next / tiles",
     "(metal::is_same_v<T, float16_t> && D == 64",
     "{T: 66, B: 2, Hk: 2, group: 2, D: 64, window: 40, dtype: float16}"),
]  # fmt: skip


def test_every_kernel_is_there() -> None:
    assert sorted(row[0] for row in FOUND) == kernel_names()


@needs_clang
@pytest.mark.parametrize(("kernel", "operator", "was", "now", "sizes"), FOUND, ids=[row[0] for row in FOUND])
def test_a_mutant_is_found(kernel: str, operator: str, was: str, now: str, sizes: str, tmp_path: Path) -> None:
    file = find_kernel(kernel)
    case: dict[str, Any] = parse_yaml(sizes)
    assert case in file.description.cases
    mutant = next(
        m for m in mutants(file)[0] if (m.operator, m.change[0]) == (operator, was) and m.change[1].startswith(now)
    )
    assert any(run_case(mutant.mutated, case, seed, folder=tmp_path).findings for seed in SEEDS)


def test_explained_survivors_are_mutants_of_today() -> None:
    explanations = read_explanations(EXPLAINED)
    every = [mutant for name in kernel_names() for mutant in mutants(find_kernel(name))[0]]
    for given in explanations:
        matching = {mutant.change[1] for mutant in every if given.explains(mutant)}
        assert matching, given.line
        assert "*" in given.now or matching == set(given.now), f"{given.line}: not today's: {set(given.now) - matching}"
        assert len(given.reason) > 20
    shared = sum(given.explains(mutant) for given in explanations for mutant in every)
    assert shared / len(every) < 0.05
