"""Running mutants: weak cases leave a survivor, which is named; stronger ones do not. The command, and its messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mlx_autoresearch.cli.app import app
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels.description import KernelFile
from mlx_autoresearch.kernels.mutation.mutants import mutants, sample
from mlx_autoresearch.kernels.mutation.running import Outcome, run_mutants
from tests.support.compiler_paths import needs_compiler

from .toys import ROW_SUMS, STRONG, WEAK, the_mutant, toy

THIRD_ROUND = "if (i != (lane) + (32) + (32)) sum += float(x[row * n + i]);"
ADD = "sum += float(x[row * n + i]);"


def outcome(file: KernelFile, operator: str, was: str, now: str) -> Outcome:
    (found,) = run_mutants(file, [the_mutant(file, operator, was, now)])
    return found


@needs_compiler
@pytest.mark.parametrize(
    ("operator", "was", "now"), [("loop-round", ADD, THIRD_ROUND), ("drop-term", "row * n", "row")]
)
def test_what_weak_cases_miss_stronger_ones_find(tmp_path: Path, operator: str, was: str, now: str) -> None:
    assert outcome(toy(tmp_path), operator, was, now).verdict == "survived"
    strong = outcome(toy(tmp_path, WEAK, STRONG), operator, was, now)
    assert (strong.verdict, strong.finding) == ("found", "wrong-result")


@needs_compiler
def test_what_is_wrong_for_one_type_only_is_found_by_a_case_of_it(tmp_path: Path) -> None:
    file = toy(tmp_path, "{n: 32}", "{n: 32, rows: 3}", "{n: 32, dtype: float16}")

    def wrong_for(dtype: str) -> Outcome:
        found = (m for m in mutants(file)[0] if (m.operator, m.was) == ("one-case", "row * n"))
        return next(iter(run_mutants(file, [m for m in found if f"is_same_v<T, {dtype}>" in m.now])))

    assert wrong_for("float").verdict == "found"
    assert wrong_for("float16_t").verdict == "survived"


@needs_compiler
def test_races_and_endless_loops_are_found_and_what_does_not_compile_is_not_counted(tmp_path: Path) -> None:
    file = toy(
        tmp_path, "{n: 32, rows: 2}", body=f"{ROW_SUMS}device T* to = y + n;\nfor (int i = 1; i < n; i *= 2)\n  ;\n"
    )
    assert outcome(file, "negate", "lane == 0", "true").finding == "device-race"
    assert outcome(file, "arithmetic", "i *= 2", "i /= 2").finding == "timeout"
    assert outcome(file, "variable", "row", "n").finding == "device-out-of-bounds"
    assert outcome(file, "drop-term", "y + n", "n").verdict == "does not compile"


@needs_compiler
def test_what_the_optimiser_makes_the_same_of_is_told(tmp_path: Path) -> None:
    body = ROW_SUMS.replace("i += 32", "i += 16 * 2")
    file = toy(tmp_path, body=body)
    assert outcome(file, "constant", "16", "17").verdict != "same code"
    same = toy(tmp_path, body=f"const int unused = 2 * 3;\n{ROW_SUMS}")
    assert outcome(same, "arithmetic", "2 * 3", "2 / 3").verdict == "same code"


@needs_compiler
def test_a_kernel_that_is_wrong_itself_or_has_no_definition_is_refused(tmp_path: Path) -> None:
    wrong = toy(tmp_path, "{n: 100}", body=ROW_SUMS.replace("i += 32", "i += 64"))
    with pytest.raises(UserError, match="toy: `kernels verify` finds a fault in the kernel itself: wrong-result"):
        list(run_mutants(wrong, mutants(wrong)[0][:1]))
    (tmp_path / "toy.py").unlink()
    from mlx_autoresearch.kernels.source import load_kernel

    bare = load_kernel(tmp_path / "toy.metal")
    with pytest.raises(UserError, match="toy: a kernel needs a definition"):
        list(run_mutants(bare, mutants(bare)[0][:1]))


def test_a_sample_is_the_same_for_the_same_seed_and_is_spread_over_lines_and_operators(tmp_path: Path) -> None:
    every = mutants(toy(tmp_path, WEAK, STRONG))[0]
    drawn = sample(every, 20, seed=3)
    assert drawn == sample(every, 20, seed=3) != sample(every, 20, seed=4)
    assert len({mutant.place for mutant in drawn}) == len({mutant.place for mutant in every})
    assert len({mutant.operator for mutant in drawn}) == len({mutant.operator for mutant in every})
    assert len(sample(every, 10**6, seed=0)) == len(every)


def mutate(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["kernels", "mutate", *arguments])


@needs_compiler
def test_the_command_names_survivors_and_ends_with_1_until_they_are_explained(tmp_path: Path) -> None:
    toy(tmp_path, WEAK)
    metal = str(tmp_path / "toy.metal")
    done = mutate(metal, "--count", "6", "--json")
    (report,) = json.loads(done.output)
    assert done.exit_code == 1
    assert report["mutants"] == report["found"] + report["survived"]
    assert report["found"] == sum(report["findings"].values()) > 0
    entries = [
        {"kernel": "to*", "line": s["text"], "was": s["was"], "now": [s["now"]], "reason": "weak cases"}
        for s in report["survivors"]
    ]
    explained = tmp_path / "explained.yaml"
    explained.write_text(json.dumps(entries))
    done = mutate(metal, "--count", "6", "--json", "--explained", str(explained))
    (now,) = json.loads(done.output)
    assert done.exit_code == 0
    assert now["found"] == report["found"]
    assert (now["survived"], now["explained"]) == (0, report["survived"])
    assert {given["reason"] for given in now["explanations"]} == {"weak cases"}


@needs_compiler
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {kernel: a}", "explained.yaml: 0.line: Field required"),
        ("a: [", "explained.yaml: "),
        (None, "no list of explained mutants"),
    ],
)
def test_bad_explanations_are_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    toy(tmp_path)
    if text is not None:
        (tmp_path / "explained.yaml").write_text(text)
    done = mutate(str(tmp_path / "toy.metal"), "--explained", str(tmp_path / "explained.yaml"))
    assert done.exit_code == 2 or isinstance(done.exception, UserError)
    assert message in str(done.exception) + done.output
