"""Every planted bug is found and no correct kernel is accused; g++ finds all but those marked in the table."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlx_autoresearch.kernels.verify import lint_kernel, run_case
from mlx_autoresearch.simulator.findings import CAUSES
from tests.support.compiler_paths import compiler_path, each_family
from tests.support.mutations import Mutation, read_mutations

MUTATIONS = read_mutations()
BUGS = [mutation for mutation in MUTATIONS if mutation.finds]


def findings_of(mutation: Mutation, compiler: str) -> dict[str, str]:
    """What is found -> one line of it; by the static pass, then by a checked run."""
    file, sizes = mutation.apply()
    found = lint_kernel(file, compiler)[0]
    found += run_case(file, sizes, seed=0, seconds=mutation.seconds, compiler=compiler).findings
    return {finding.what: str(finding) for finding in reversed(found)}


@pytest.fixture(scope="session")
def found(request: pytest.FixtureRequest) -> dict[tuple[str, str], dict[str, str]]:
    """(compiler, mutation) -> findings, for every test that was selected; compilers run side by side."""
    own = (item for item in request.session.items if item.path == Path(__file__))
    selected = [item for item in own if "found" in getattr(item, "fixturenames", ())]
    parameters = [item.callspec.params for item in selected if isinstance(item, pytest.Function)]
    jobs = [(given["family"], given["mutation"]) for given in parameters if compiler_path(given["family"])]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda job: findings_of(job[1], compiler_path(job[0]) or ""), jobs)
        return {(family, mutation.id): result for (family, mutation), result in zip(jobs, results, strict=True)}


@each_family
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.id)
def test_finds_what_was_planted_and_nothing_in_controls(mutation: Mutation, family: str, found) -> None:
    findings = found[family, mutation.id]
    if family == "gcc" and mutation.clang_only:
        assert mutation.finds not in findings, "g++ finds this after all: remove clang_only"
    elif mutation.finds:
        assert mutation.finds in findings, f"found only {findings}"
    else:
        assert findings == {}


def test_the_table_is_large_enough() -> None:
    assert len(BUGS) >= 60
    assert len(MUTATIONS) - len(BUGS) >= 10
    assert len({mutation.kernel for mutation in BUGS}) >= 3
    assert len({mutation.id for mutation in MUTATIONS}) == len(MUTATIONS)


def test_every_kind_of_finding_is_planted() -> None:
    # These are planted in test_simulate.py, and what only a GPU says in tests/kernels/test_broken.py.
    elsewhere = {
        "ambiguous-place",
        "unsupported",
        "compile-error",
        "static-write",
        "launch-error",
        "header-without-end",
    }
    assert {mutation.finds for mutation in BUGS} == CAUSES.keys() - elsewhere
