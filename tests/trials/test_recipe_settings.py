"""An experiment adds a setting by editing the recipe and its YAML only: declared, checked and used in its snapshot."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlx_autoresearch.config.load import with_settings
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.research.guard.scan import scan
from mlx_autoresearch.training.run import Run
from mlx_autoresearch.trials.trial import Limits, TrialFailed, run_trial
from tests.support.corpus import make_corpus
from tests.support.laboratory import make_config, make_repository

RECIPE = "src/mlx_autoresearch/recipe"
DECLARED = """
    z_loss: float = 0.0

    def __post_init__(self):
        if self.z_loss < 0:
            raise ValueError(f"z_loss must be at least 0, got {self.z_loss}")
"""
LOSS = "            x = self.hidden(idx)\n            return linear_cross_entropy("
USED = """            x = self.hidden(idx)
            z = mx.logsumexp(self.logits(x), axis=-1)
            return self.settings.z_loss * mx.square(z).mean() + linear_cross_entropy("""


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, file
    file.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return make_config(make_corpus(tmp_path_factory.mktemp("text") / "corpus"))


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A snapshot whose recipe has a z-loss: a penalty on the logarithm of the softmax's denominator."""
    code = make_repository(tmp_path / "code")
    settings = code / RECIPE / "settings.py"
    head, body = settings.read_text().split("class Settings:\n", 1)
    docstring, rest = body.split("\n", 1)
    settings.write_text(f"{head}class Settings:\n{docstring}\n{DECLARED}{rest}")
    edit(code / RECIPE / "model.py", LOSS, USED)
    return code


def losses(config: Config, folder: Path, code: Path, **settings: object) -> list[float]:
    config = with_settings(config, {f"recipe.{key}": value for key, value in settings.items()}, "the test")
    run_trial(config, seed=42, folder=folder, code=code, limits=Limits())
    assert Run.open(folder).config().recipe == settings
    return [record["loss"] for record in Run.open(folder).metrics()]


def test_a_setting_that_an_experiment_declares_trains_and_shows_an_effect(
    tiny: Config, code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLX_DISABLE_COMPILE", "1")  # an edited loss would be compiled anew: seconds, on a CPU
    without = losses(tiny, tmp_path / "without", code)
    penalty = losses(tiny, tmp_path / "penalty", code, z_loss=0.1)
    # ln(300)² nats² of penalty at the start, where logits are nearly equal.
    assert penalty[0] == pytest.approx(without[0] + 0.1 * without[0] ** 2, rel=1e-3)
    assert penalty[-1] != without[-1]


@pytest.mark.parametrize(
    ("settings", "detail"),
    [
        ({"zloss": 0.1}, "unknown key recipe.zloss; did you mean recipe.z_loss?"),
        ({"z_loss": "high"}, 'recipe.z_loss must be a number, got "high"'),
        ({"z_loss": -1}, "recipe.z_loss must be at least 0, got -1.0"),
    ],
)
def test_a_wrong_setting_fails_its_trial_in_one_line(
    tiny: Config, code: Path, tmp_path: Path, settings: dict, detail: str
) -> None:
    with pytest.raises(TrialFailed) as failure:
        losses(tiny, tmp_path / "run", code, **settings)
    assert (failure.value.kind, failure.value.detail) == ("setup", detail)


def test_the_installed_recipe_does_not_know_an_experiments_setting(tiny: Config, tmp_path: Path) -> None:
    config = with_settings(tiny, {"recipe.z_loss": 0.1}, "the test")
    with pytest.raises(TrialFailed, match="setup: unknown key recipe"):
        run_trial(config, seed=42, folder=tmp_path / "run", code=None, limits=Limits())


def test_the_guard_lets_an_experiment_declare_a_setting(code: Path, tmp_path: Path) -> None:
    honest = make_repository(tmp_path / "honest")
    for name in ("settings.py", "model.py"):
        path = f"{RECIPE}/{name}"
        assert scan(path, (code / path).read_bytes(), (honest / path).read_bytes()) == []
