"""`measure` names what the cases of a kernel do not reach, and nothing else; ours reach everything or say why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels.coverage import Coverage, measure
from mlx_autoresearch.kernels.registry import find_kernel, kernel_names
from mlx_autoresearch.kernels.source import load_kernel
from mlx_autoresearch.kernels.tried import untried
from mlx_autoresearch.recipe.kernels.flash_attention import HEAD_DIMS
from tests.support.compiler_paths import needs_clang

METAL = """\
#include "limit.h"
METAL_FUNC int forgotten(int v) { return v > 1 ? v : 1; }
// kernel body
const int i = int(thread_position_in_grid.x), n = sizes[0], rounds = sizes[1];
if (i >= n || n < 0)
  return;
float v = float(x[i]);
for (int k = 0; k < rounds; k++)
  v = capped(v + 1.0f, 100.0f);
#pragma unroll
for (int k = 0; k < N; k++)
  v += 1.0f;
y[i] = T(v);
"""
LIMIT = """\
METAL_FUNC float capped(float v, float most) {
  if (v > most) {
    if (v > 2.0f * most)
      v = most;
    return most;
  }
  return v;
}
METAL_FUNC float unused(float v) { return v > 0.0f ? v : 0.0f; }
"""
YAML = """\
inputs:
  x: {dtype: dtype, shape: [n], scale: scale, min_elements: 8}
  sizes: {dtype: int32, value: [n, rounds]}
outputs: {y: {dtype: dtype, shape: [n]}}
template: {T: dtype, N: N}
grid: ["32 * ceil_div(n, 32)", 1, 1]
threadgroup: [32, 1, 1]
choices: {dtype: [float32, bfloat16], N: [1, 4]}
defaults: {dtype: float32, N: 4, scale: 1}
cases:
  - {n: 40, rounds: 1}
"""
CASES = """\
  - {n: 32, rounds: 0, N: 1}
  - {n: 70, rounds: 200, dtype: bfloat16, scale: 200}
  - {n: 9, rounds: 2, dtype: bfloat16, N: 1}
unreachable:
  "toy.metal: n < 0: never true": a length
"""
WHOLE = METAL.replace(METAL.splitlines()[1] + "\n", "")


@pytest.fixture
def toy(tmp_path: Path) -> Any:
    def make(cases: str = "", metal: str = WHOLE, extra: str = "") -> Coverage:
        for name, text in (("toy.metal", metal), ("limit.h", LIMIT), ("toy.yaml", YAML + cases + extra)):
            (tmp_path / name).write_text(text)
        return measure(load_kernel(tmp_path / "toy.metal"))

    return make


@needs_clang
def test_what_no_case_reaches_is_named(toy: Any) -> None:
    coverage = toy(metal=METAL)
    assert [str(gap) for gap in coverage.unreached] == [
        "limit.h:2: v > most: never true",  # and not what lies behind it; and nothing of what is never called there
        "toy.metal:2: forgotten: never called",
        "toy.metal:5: n < 0: never true",
        "toy.metal:8: loop while k < rounds: never 0, 2 or 3+ rounds",
        "dtype = bfloat16: never tried",
        "N = 1: never tried",
        "ceil_div(n, 32): never exactly one tile",
        "ceil_div(n, 32): never more than two tiles",
    ]
    assert not coverage.complete
    assert coverage.sizes == {"N": (4, 4), "scale": (1, 1), "n": (40, 40), "rounds": (1, 1)}


@needs_clang
def test_cases_and_reasons_make_it_complete(toy: Any) -> None:
    coverage = toy(CASES)
    assert coverage.unreached == [] and coverage.untrue == [] and coverage.complete
    assert [(str(gap), reason) for gap, reason in coverage.argued] == [("toy.metal:4: n < 0: never true", "a length")]
    assert coverage.sizes["n"] == (9, 70)


@needs_clang
def test_one_reason_holds_for_the_same_text_wherever_it_stands(toy: Any) -> None:
    metal = WHOLE.replace("v += 1.0f;", "v += (n < 0 ? 1.0f : 2.0f) * (n < 0 ? 1.0f : 2.0f);")
    coverage = toy(CASES, metal)
    assert coverage.complete
    assert [str(gap) for gap, _ in coverage.argued] == [f"toy.metal:{line}: n < 0: never true" for line in (4, 11)]


@needs_clang
@pytest.mark.parametrize(
    "key",
    [
        "limit.h: v > most: never true",
        "toy.metal: loop while k < rounds: never 0 rounds",
        "dtype = bfloat16: never tried",
        "ceil_div(n, 32): never exactly one tile",
        "toy.metal: n > 0: never true",  # no such line
    ],
)
def test_a_reason_for_what_is_reached_is_an_error(toy: Any, key: str) -> None:
    coverage = toy(CASES, extra=f'  "{key}": it cannot be\n')
    assert coverage.untrue == [key] and coverage.unreached == [] and not coverage.complete


@needs_clang
def test_pairs_of_choices_are_tried_together(toy: Any) -> None:
    cases = CASES.replace("n: 9, rounds: 2, dtype: bfloat16, N: 1", "n: 9, rounds: 2")
    assert [gap.key for gap in toy(cases).unreached] == ["dtype = bfloat16, N = 1: never tried together"]


def test_a_list_to_draw_from_is_a_choice_for_the_template(tmp_path: Path) -> None:
    text = YAML.replace("choices: {dtype: [float32, bfloat16], N: [1, 4]}", "random: {N: [1, 2, 4], n: [3, 4]}")
    for name, content in (("toy.metal", WHOLE), ("limit.h", LIMIT), ("toy.yaml", text)):
        (tmp_path / name).write_text(content)
    file = load_kernel(tmp_path / "toy.metal")
    said = list(untried(file, [file.resolve(sizes) for sizes in file.description.cases]))
    assert [text for text in said if "=" in text] == ["N = 1: never tried", "N = 2: never tried"]


def test_a_size_that_the_grid_cuts_has_tiles(tmp_path: Path) -> None:
    text = YAML.replace('["32 * ceil_div(n, 32)", 1, 1]', "[n, 1, 1]")
    for name, content in (("toy.metal", WHOLE), ("limit.h", LIMIT), ("toy.yaml", text)):
        (tmp_path / name).write_text(content)
    file = load_kernel(tmp_path / "toy.metal")
    said = list(untried(file, [file.resolve({"n": n, "rounds": 1}) for n in (32, 64)]))
    assert [text for text in said if "tile" in text] == [
        "grid n, threadgroup 32: never a partial last tile",
        "grid n, threadgroup 32: never more than two tiles",
    ]


@pytest.mark.parametrize(("sizes", "said"), [({"D": 48}, "D must be one of 32, 64, 96, 128, got 48")])
def test_what_is_no_choice_is_refused(sizes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        find_kernel("flash_attention_forward").resolve({"T": 9, **sizes})


def test_the_choices_are_what_the_recipe_can_ask_for() -> None:
    for name in kernel_names():
        choices = find_kernel(name).description.choices
        assert choices["dtype"] == ["float32", "float16", "bfloat16"]  # shapes.check_float
        assert choices.get("D", list(HEAD_DIMS)) == list(HEAD_DIMS)


@pytest.mark.parametrize("name", kernel_names())
def test_our_cases_try_every_choice_and_tiling(name: str) -> None:
    file = find_kernel(name)
    said = set(untried(file, [file.resolve(sizes) for sizes in file.description.cases]))
    assert said <= file.description.unreachable.keys()


@needs_clang
@pytest.mark.parametrize("name", ["embedding_forward", "residual_norm_forward", "newton_schulz_polynomial"])
def test_our_cases_reach_everything(name: str) -> None:  # the other kernels: .ci/run
    coverage = measure(find_kernel(name))
    assert coverage.unreached == [] and coverage.untrue == [] and coverage.unmeasured == []
    assert coverage.places


@needs_clang
def test_a_kernel_that_is_not_launched_is_one_line(toy: Any) -> None:
    with pytest.raises(UserError, match="toy: with counters the kernel cannot be run: ") as raised:
        toy(metal=WHOLE.replace("float v", "threadgroup float t[2] = {0.0f, 1.0f};\nfloat v"))
    assert "\n" not in str(raised.value)
