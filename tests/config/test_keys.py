from __future__ import annotations

from mlx_autoresearch.config import keys


def test_none_is_a_value_and_an_empty_mapping_is_not_lost() -> None:
    assert keys.differing({"a": None}, {}) == ["a"]
    assert keys.differing({"a": None}, {"a": None}) == []
    assert keys.flatten({"trian": {}, "train": {"max_steps": {}}}) == {"trian": {}, "train.max_steps": {}}
