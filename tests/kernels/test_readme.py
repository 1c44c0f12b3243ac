"""The example in custom_kernels/README.md does what it says."""

from __future__ import annotations

import re
from pathlib import Path

from mlx_autoresearch.kernels.coverage import measure
from mlx_autoresearch.kernels.registry import kernel_folder
from mlx_autoresearch.kernels.source import load_kernel
from mlx_autoresearch.kernels.verify import verify
from tests.support.compiler_paths import needs_clang, needs_compiler

pytestmark = needs_compiler


def write_example(folder: Path, wrong: tuple[str, str] = ("", "")) -> Path:
    text = (kernel_folder() / "README.md").read_text(encoding="utf-8")
    for language, suffix in (("metal", ".metal"), ("yaml", ".yaml"), ("python", ".py")):
        match = re.search(rf"```{language}\n(.*?)```", text, re.S)
        assert match
        (folder / f"softmax{suffix}").write_text(match[1].replace(*wrong) if suffix == ".metal" else match[1])
    return folder / "softmax.metal"


def test_the_example_is_right(tmp_path: Path) -> None:
    report = verify(load_kernel(write_example(tmp_path)))
    assert report.findings == []
    assert report.error > 0


def test_its_mistakes_are_found(tmp_path: Path) -> None:
    path = write_example(tmp_path, ("i < n; i += 32)\n  largest", "i <= n; i += 32)\n  largest"))
    findings = verify(load_kernel(path), seeds=[0]).findings
    assert {(finding.what, finding.place) for finding in findings} == {("device-out-of-bounds", "softmax.metal:9")}
    path = write_example(tmp_path, ("largest = simd_max(largest);", ""))
    assert {finding.what for finding in verify(load_kernel(path), seeds=[0]).findings} == {"wrong-result"}


@needs_clang
def test_its_cases_reach_what_it_says(tmp_path: Path) -> None:
    file = load_kernel(write_example(tmp_path))
    assert measure(file).complete
    fewer = [str(gap) for gap in measure(file, file.description.cases[:2]).unreached]
    assert fewer == [f"softmax.metal:{line}: loop while i < n: never 3+ rounds" for line in (8, 12, 15)]
