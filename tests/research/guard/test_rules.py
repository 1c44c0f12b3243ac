from __future__ import annotations

from pathlib import Path

import pytest

import mlx_autoresearch
from mlx_autoresearch.config.load import with_settings
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.research.guard import integrity, rules
from mlx_autoresearch.research.workspace import Change, Workspace

ENDS = ".py, .metal, .h, .cu, .cuh, .yaml, .md, .txt"


@pytest.mark.parametrize(
    ("path", "editable"),
    [
        ("research/experiment.yaml", True),
        ("src/mlx_autoresearch/recipe/model.py", True),
        ("src/mlx_autoresearch/recipe/kernels/deep/new.py", True),
        ("custom_kernels/new.sm_90.cu", True),
        ("custom_kernels/new.cuh", True),
        ("custom_kernels/rope.metal", True),
        ("src/mlx_autoresearch/metric/bits.py", False),
        ("src/mlx_autoresearch/data/packing.py", False),
        ("src/mlx_autoresearch/research/guard/rules.py", False),
        ("src/mlx_autoresearch/recipex/model.py", False),
        ("tests/test_model.py", False),
        (".gitattributes", False),
        ("src/mlx_autoresearch/recipe/kernels/.gitattributes", False),
        ("custom_kernels/deep/.GITATTRIBUTES", False),
        ("research/other.yaml", False),
    ],
)
def test_what_may_be_changed(path: str, editable: bool) -> None:
    assert rules.is_editable(path) == editable


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        *((f"custom_kernels/new{end}", True) for end in (".metal", ".yaml", ".h", ".py", ".md")),
        *((f"custom_kernels/new{end}", False) for end in (".pyc", ".so", ".PY", ".pyd", ".dylib", "", ".pth", ".zip")),
        ("src/mlx_autoresearch/recipe/__pycache__/model.cpython-311.pyc", False),
        ("src/mlx_autoresearch/recipe/model.abi3.so", False),
    ],
)
def test_an_experiment_adds_sources_only(name: str, allowed: bool, repository: Path) -> None:
    workspace = Workspace(repository, repository / "runs/test", "test")
    change = Change({name: "A"}, 1, 0)
    found = rules.check_change(workspace, change, "HEAD", "HEAD")
    assert found == ([] if allowed else [f"{name} is no source: files of an experiment end in {ENDS}"])
    assert rules.check_change(workspace, Change({name: "D"}, 0, 1), "HEAD", "HEAD") == []


def test_what_decides_the_metric_is_watched() -> None:
    watched = integrity.trusted_files()
    package = Path(mlx_autoresearch.__file__).parent
    for name in (
        "metric/bits.py",
        "training/trainer.py",
        "config/settings.py",
        "data/packing.py",
        "kernels/launch.py",
        "kernels/cuda/shim/math.cuh",
        "simulator/shim/functions.def",
        "research/guard/rules.py",
        "ledger/ledger.py",
    ):
        assert (package / name).is_file() and name in watched
    assert not any(name.startswith(("recipe/", "custom_kernels/")) or name.endswith(".pyc") for name in watched)


def test_frozen_keys_are_those_of_data_metric_and_budget() -> None:
    start, test = Config(), "the test"
    changed = with_settings(
        start, {"train.time_budget": 120.0, "evaluate.eval_tokens": 512, "model.depth": 2}, "the test"
    )
    assert [problem.split()[0] for problem in rules.check_frozen(changed, start)] == [
        "evaluate.eval_tokens",
        "train.time_budget",
    ]
    assert rules.check_frozen(with_settings(start, {"model.depth": 2, "optimizer.ns_steps": 3}, test), start) == []


def test_overrides_are_validated() -> None:
    with pytest.raises(UserError, match=r"unknown key model\.deep"):
        with_settings(Config(), {"model.deep": 2}, "the test")
    with pytest.raises(UserError, match=r'model\.depth must be an integer, got {"x": 2}'):
        with_settings(Config(), {"model.depth.x": 2}, "the test")


@pytest.mark.parametrize("text", [None, b"\xff", b"a: [", b"- 1", b"model: {deep: 1}", b"model: {depth: -1}"])
def test_an_experiment_that_cannot_be_read_is_one_line(text: bytes | None) -> None:
    with pytest.raises(UserError, match=r"research/experiment\.yaml"):
        rules.read_config(text)
