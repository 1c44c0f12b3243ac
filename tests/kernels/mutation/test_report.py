"""What is told of a kernel's mutants, and which survivors an explanation is about."""

from __future__ import annotations

from pathlib import Path

from mlx_autoresearch.kernels.mutation.mutants import mutants
from mlx_autoresearch.kernels.mutation.report import Explanation, MutationReport
from mlx_autoresearch.kernels.mutation.running import Outcome

from .toys import the_mutant, toy


def report(folder: Path, *explanations: Explanation) -> MutationReport:
    file = toy(folder)
    short = the_mutant(file, "drop-term", "row * n", "row")
    long = the_mutant(file, "arithmetic", "sum += float(x[row * n + i])", "sum -= float(x[row * n + i])")
    first = mutants(file)[0][0]
    found = [Outcome(first, "found", kind) for kind in ("timeout", "race", "race")]
    others = [Outcome(short, "same code"), Outcome(long, "does not compile")]
    return MutationReport(
        "toy", [*found, Outcome(short, "survived"), Outcome(long, "survived"), *others], [], explanations
    )


def test_survivors_are_shown_with_their_place_on_one_line_if_it_fits(tmp_path: Path) -> None:
    assert report(tmp_path).text().split("\n") == [
        "toy: 3 of 5 mutants found",
        "  2 survived, 1 same code, 1 does not compile",
        "     2 race",
        "     1 timeout",
        "  survived: toy.metal:7 drop-term: row * n -> row",
        "  survived: toy.metal:7 arithmetic",
        "    sum += float(x[row * n + i])",
        "    -> sum -= float(x[row * n + i])",
    ]


def test_an_explanation_is_about_a_kernel_a_line_and_an_edit(tmp_path: Path) -> None:
    right = {"kernel": "t?y", "line": "sum +=  float(x[row * n + i]);", "was": "row * n", "now": ["n", "row"]}
    assert report(tmp_path, Explanation(**{**right, "was": "*", "now": ["*"]}, reason="all")).counts["explained"] == 2
    for changed in ({}, {"kernel": "top"}, {"line": "sum = 0;"}, {"was": "row"}, {"now": ["n"]}):
        given = Explanation(**{**right, **changed, "reason": "row is 0"})
        told = report(tmp_path, given)
        assert (told.counts["explained"], told.counts["survived"]) == ((1, 1) if not changed else (0, 2))
    assert report(tmp_path, Explanation(**right, reason="row is 0")).data()["explanations"][0]["reason"] == "row is 0"
