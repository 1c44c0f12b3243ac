from __future__ import annotations

from pathlib import Path

import pytest

import mlx_autoresearch
from mlx_autoresearch.config import Config
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.research import guard


@pytest.mark.parametrize(
    ("path", "editable"),
    [
        ("research/experiment.yaml", True),
        ("src/mlx_autoresearch/model.py", True),
        ("src/mlx_autoresearch/kernels/deep/new.py", True),
        ("custom_kernels/rope.metal", True),
        ("src/mlx_autoresearch/evaluate.py", False),
        ("src/mlx_autoresearch/data/packing.py", False),
        ("src/mlx_autoresearch/research/guard.py", False),
        ("src/mlx_autoresearch/modelx.py", False),
        ("tests/test_model.py", False),
        (".gitattributes", False),
        ("src/mlx_autoresearch/kernels/.gitattributes", False),
        ("custom_kernels/deep/.GITATTRIBUTES", False),
        ("research/other.yaml", False),
    ],
)
def test_what_may_be_changed(path: str, editable: bool) -> None:
    assert guard.is_editable(path) == editable


def test_what_decides_the_metric_is_watched() -> None:
    watched = guard.trusted_files()
    package = Path(mlx_autoresearch.__file__).parent
    for name in (
        "evaluate.py",
        "trainer.py",
        "config.py",
        "data/packing.py",
        "research/guard.py",
        "research/ledger.py",
    ):
        assert (package / name).is_file() and name in watched
    assert "model.py" not in watched
    assert not any(name.startswith("kernels/") for name in watched)


def test_frozen_keys_are_those_of_data_metric_and_budget() -> None:
    start = Config()
    changed = guard.with_overrides(start, {"train.time_budget": 120.0, "evaluate.eval_tokens": 512, "model.depth": 2})
    assert [problem.split()[0] for problem in guard.check_frozen(changed, start)] == [
        "evaluate.eval_tokens",
        "train.time_budget",
    ]
    assert guard.check_frozen(guard.with_overrides(start, {"model.depth": 2, "optimizer.ns_steps": 3}), start) == []


def test_overrides_are_validated() -> None:
    with pytest.raises(UserError, match=r"unknown key model\.deep"):
        guard.with_overrides(Config(), {"model.deep": 2})
    with pytest.raises(UserError, match=r"unknown key model\.depth\.x"):
        guard.with_overrides(Config(), {"model.depth.x": 2})


@pytest.mark.parametrize("text", [None, b"\xff", b"a: [", b"- 1", b"model: {deep: 1}", b"model: {depth: -1}"])
def test_an_experiment_that_cannot_be_read_is_one_line(text: bytes | None) -> None:
    with pytest.raises(UserError, match=r"research/experiment\.yaml"):
        guard.read_config(text)
