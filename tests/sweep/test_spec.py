"""A sweep's file: what it may say, the points it means, and one line for what is wrong with it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.sweep.spec import Choices, Range, config_at, load_sweep, parse_axis, short_names
from mlx_autoresearch.sweep.study import decode, encode
from mlx_autoresearch.sweep.sweep import open_sweep
from tests.support.sweeps import Sweeper

CONFIGS = Path(__file__).parents[2] / "configs" / "sweeps"


def test_a_grid_has_every_combination_in_order(file: Sweeper) -> None:
    space = {"optimizer.matrix_lr": [0.1, 0.01], "model.n_layer": {"low": 1, "high": 5, "step": 2}}
    points = load_sweep(file(space=space)).points()
    assert [tuple(p.values()) for p in points] == [(a, b) for a in (0.1, 0.01) for b in (1, 3, 5)]


def test_random_points_are_in_range_and_the_same_every_time(file: Sweeper) -> None:
    space = {
        "optimizer.matrix_lr": {"low": 0.001, "high": 0.1, "log": True},
        "train.warmdown_ratio": {"low": 0.2, "high": 0.8},
        "model.n_layer": {"low": 1, "high": 3},
        "train.total_batch_size": {"low": 128, "high": 512, "step": 128},
        "model.mlp": ["relu2", "swiglu"],
    }
    path = file(method="random", trials=300, space=space)
    points = load_sweep(path).points()
    assert points == load_sweep(path).points()
    lrs = sorted(p["optimizer.matrix_lr"] for p in points)
    assert 0.001 <= lrs[0] < 0.002 and 0.05 < lrs[-1] <= 0.1
    assert 0.007 < lrs[150] < 0.014  # the middle of a logarithmic range
    assert all(0.2 <= p["train.warmdown_ratio"] <= 0.8 for p in points)
    assert {p["model.n_layer"] for p in points} == {1, 2, 3}
    assert {p["train.total_batch_size"] for p in points} == {128, 256, 384, 512}
    assert Counter(p["model.mlp"] for p in points)["relu2"] == pytest.approx(150, abs=40)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"space": {}}, "names no setting"),
        ({"space": {"optimizer.matrix_lr": []}}, "empty list"),
        ({"space": {"optimizer.matrix_lr": [0.1, 0.1]}}, "optimizer.matrix_lr has the value 0.1 twice"),
        ({"space": {"model.softcap": [1, True]}}, "model.softcap has both 1 and true, which are the same value"),
        ({"space": {"model.softcap": [15, None, 15.0]}}, "both 15 and 15.0"),
        ({"space": {"model.value_embeds": [False, 0]}}, "both false and 0"),
        ({"space": {"model.window_pattern": [[1, 2], [1.0, 2]]}}, r"both \[1, 2\] and \[1.0, 2\]"),
        ({"space": {"optimizer.matrix_rate": [0.1]}}, "did you mean optimizer.matrix_lr"),
        ({"settings": {"train.max_step": 3}}, "did you mean train.max_steps"),
        ({"space": {"optimizer.matrix_lr": {"low": 0.1, "high": 0.01}}, "method": "random"}, "less than high"),
        ({"space": {"optimizer.matrix_lr": {"low": 0.0, "high": 1.0, "log": True}}}, "must be positive"),
        ({"space": {"optimizer.matrix_lr": {"low": 0.1, "high": 1.0}}}, "needs a list of values or a step"),
        ({"space": {"optimizer.matrix_lr": {"from": 1}}}, "low and high"),
        ({"space": {"optimizer.matrix_lr": 0.1}}, "must be a list of values"),
        ({"space": {"train.seed": [1, 2]}}, "set by seeds"),
        ({"method": "random"}, "trials is missing"),
        ({"trials": 3}, "no effect on a grid"),
        ({"method": "gird"}, "method must be"),
        ({"seeds": [1, 1]}, "differ"),
        ({"seed": [1]}, "did you mean seeds"),
        ({"prune": {"after": 2.0}}, "prune.after must be"),
        ({"config": "nowhere.yaml"}, "no configuration file"),
        ({"space": {"train.total_batch_size": [100]}}, "the point train.total_batch_size=100 cannot be trained"),
        ({"space": {"data.vocab_size": [301]}}, "not prepared"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(file: Sweeper, fields: dict[str, Any], message: str) -> None:
    path = file(**fields)
    with pytest.raises(UserError, match=message) as error:
        open_sweep(path, home=path.parent / "home")
    assert "\n" not in str(error.value)


def test_the_sweeps_in_configs_are_sound() -> None:
    files = sorted(CONFIGS.glob("*.yaml"))
    assert len(files) >= 3
    for path in files:
        loaded = load_sweep(path)
        config_at(loaded, loaded.points()[0])


def test_values_that_optuna_does_not_know_come_back_as_they_were() -> None:
    axis = parse_axis("optimizer.adam_betas", [[0.8, 0.95], [0.9, 0.99], None, 1, "a"])
    assert isinstance(axis, Choices)
    assert [decode(axis, encode(axis, value)) for value in axis.values] == list(axis.values)
    assert Range(1, 7, 3).points == [1, 4, 7]
    assert short_names(["a.x", "b.x", "b.y"]) == {"a.x": "a.x", "b.x": "b.x", "b.y": "y"}


def test_no_random_point_is_drawn_twice(file: Sweeper) -> None:
    space = {"model.mlp": ["relu2", "swiglu"], "model.n_layer": [1, 2]}
    points = load_sweep(file(method="random", trials=10, space=space)).points()
    assert sorted(map(str, points)) == sorted(set(map(str, points)))
    assert len(points) == 4  # all there are
