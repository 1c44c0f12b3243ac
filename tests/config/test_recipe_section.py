"""The free section `recipe:`: what the configuration lets through, and how declared settings are read from it."""

# No `from __future__ import annotations`: the types of settings must be types, not text.

from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from mlx_autoresearch.config.load import check_key, load_config, settings_of, validate_config, with_settings
from mlx_autoresearch.config.recipe_section import read_settings
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import UserError


@dataclass(frozen=True)
class Declared:
    z_loss: float = 0.0
    heads: int = 4
    tied: bool = False
    mixer: Literal["conv", "none", 2] = "none"
    name: str = ""
    limit: float | None = None
    either: int | float | str = 0
    betas: tuple[float, float] = (0.9, 0.99)
    layers: tuple[int, ...] = ()
    words: list[str | None] | None = None

    def __post_init__(self) -> None:
        if self.z_loss < 0:
            raise ValueError(f"z_loss must be at least 0, got {self.z_loss}")
        if self.heads == 13:
            raise ValueError("no thirteen heads with a z_loss")


def error_of(function, *arguments) -> str:
    with pytest.raises(UserError) as error:
        function(*arguments)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_nothing_given_gives_the_declared_defaults() -> None:
    assert read_settings(Declared, {}) == Declared()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"z_loss": 1e-4, "heads": 2, "tied": True}, Declared(z_loss=1e-4, heads=2, tied=True)),
        ({"z_loss": 1}, Declared(z_loss=1.0)),
        ({"mixer": "conv"}, Declared(mixer="conv")),
        ({"mixer": 2}, Declared(mixer=2)),
        ({"limit": None}, Declared()),
        ({"limit": 3}, Declared(limit=3.0)),
        ({"either": 3}, Declared(either=3)),
        ({"either": "x"}, Declared(either="x")),
        ({"betas": [0, 0.5], "layers": [1, 2, 3]}, Declared(betas=(0.0, 0.5), layers=(1, 2, 3))),
        ({"words": ["a", None]}, Declared(words=["a", None])),
    ],
)
def test_values_come_in_the_declared_types(values: dict[str, Any], expected: Declared) -> None:
    got = read_settings(Declared, values)
    assert got == expected
    assert [type(v) for v in vars(got).values()] == [type(v) for v in vars(expected).values()]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"zloss": 1}, "unknown key recipe.zloss; did you mean recipe.z_loss?"),
        ({"a.b": 1}, "unknown key recipe.a.b; valid keys: z_loss, heads, tied, mixer"),
        ({"z_loss": "x"}, 'recipe.z_loss must be a number, got "x"'),
        ({"z_loss": True}, "recipe.z_loss must be a number, got true"),
        ({"z_loss": 10**400}, "recipe.z_loss must be a number, got 1000"),
        ({"heads": 2.5}, "recipe.heads must be an integer, got 2.5"),
        ({"heads": True}, "recipe.heads must be an integer, got true"),
        ({"tied": 1}, "recipe.tied must be true or false, got 1"),
        ({"name": None}, "recipe.name must be a string, got null"),
        ({"limit": "x"}, 'recipe.limit must be a number or null, got "x"'),
        ({"mixer": "cnv"}, 'recipe.mixer must be conv or none or 2, got "cnv"'),
        ({"mixer": 2.0}, "recipe.mixer must be conv or none or 2, got 2.0"),
        ({"betas": [0.9]}, "recipe.betas must be a list of 2: a number, a number, got [0.9]"),
        ({"layers": [1, "x"]}, 'recipe.layers must be a list, each entry an integer, got [1, "x"]'),
        ({"layers": 1}, "recipe.layers must be a list, each entry an integer, got 1"),
        ({"z_loss": -1}, "recipe.z_loss must be at least 0, got -1.0"),
        ({"heads": 13}, "recipe: no thirteen heads with a z_loss"),
    ],
)
def test_wrong_values_are_one_line(values: dict[str, Any], message: str) -> None:
    assert error_of(read_settings, Declared, values).startswith(message)


def test_a_recipe_without_settings_says_so() -> None:
    message = error_of(read_settings, make_dataclass("Nothing", [], frozen=True), {"z_loss": 1})
    assert message == "unknown key recipe.z_loss; this recipe declares no settings (they stand in recipe/settings.py)"


class Evil:
    """A name that would be called if annotations were evaluated."""

    @classmethod
    def __class_getitem__(cls, item: object) -> None:
        raise AssertionError("it was evaluated")


@pytest.mark.parametrize("kind", ["float", "Evil[0]", list["Evil[0]"], tuple["Evil[0]", int], dict, object, Declared])
def test_other_types_are_refused_and_text_is_never_evaluated(kind: Any) -> None:
    """The recipe may be an untrusted experiment's; the scan of its code does not read text."""
    declared = make_dataclass("Bad", [("x", kind, None)], frozen=True)
    with pytest.raises(UserError, match="the recipe's setting x has the type"):
        read_settings(declared, {"x": [1, 2]})


def test_the_section_is_empty_by_default_and_may_be_left_out(tmp_path: Path) -> None:
    assert Config().recipe == {}
    old = "\n".join(line for line in Config().to_yaml().splitlines() if not line.startswith("recipe"))
    (tmp_path / "old.yaml").write_text(old)
    assert load_config(tmp_path / "old.yaml") == Config()
    assert not [key for key in settings_of(Config()) if key.startswith("recipe")]


@pytest.mark.parametrize(
    "recipe", [{"z_loss": 1e-4, "n": 3, "on": True, "off": None, "name": "1e5"}, {"betas": [0.9, [1, "x"]], "none": []}]
)
def test_a_section_is_printed_as_it_is_read(tmp_path: Path, recipe: dict[str, Any]) -> None:
    config = validate_config({"recipe": recipe}, "the test")
    assert config.recipe == recipe
    (tmp_path / "a.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "a.yaml") == config
    assert with_settings(Config(), settings_of(config), "the test") == config


def test_settings_of_the_recipe_are_overridden_as_others_are(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("recipe: {kind: conv, z_loss: 1, size: 3}\n")
    config = load_config(tmp_path / "a.yaml", ["recipe.z_loss=1e-3", "recipe.kind=none", "recipe.betas=[0.9, 0.95]"])
    assert config.recipe == {"kind": "none", "z_loss": 1e-3, "size": 3, "betas": [0.9, 0.95]}
    check_key("recipe.anything", [1, 2])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("recipe.x={a: 1}", "recipe.x: a setting of the recipe is a scalar or a list, not a mapping"),
        ("recipe.x=[{a: 1}]", "recipe.x: a setting of the recipe is a scalar or a list, not a mapping"),
        ("recipe.x.y=1", "recipe.x: a setting of the recipe is a scalar or a list, not a mapping"),
        ("recipe.x=.nan", "recipe.x: a setting of the recipe must be finite"),
        ("recipe=5", "recipe must be a"),
        ("recpie.x=1", "unknown key recpie; did you mean recipe?"),
    ],
)
def test_what_no_recipe_could_declare_is_refused_at_once(setting: str, message: str) -> None:
    assert error_of(load_config, None, [setting]).startswith(message)
