"""Where trusted code meets the recipe, and who checks the recipe's own settings."""

# No `from __future__ import annotations`: the types of settings must be types, not text.

import dataclasses
import subprocess
import sys
from pathlib import Path

import grimp
import mlx.core as mx
import pytest
from typer.testing import CliRunner

import mlx_autoresearch
from mlx_autoresearch.cli.app import app
from mlx_autoresearch.config.load import load_config, validate_config
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.recipe import interface
from mlx_autoresearch.recipe import settings as recipe_module
from mlx_autoresearch.recipe.settings import Settings, recipe_settings
from mlx_autoresearch.sweep.spec import check_points, load_sweep
from mlx_autoresearch.training import trainer
from mlx_autoresearch.training.run import Run
from mlx_autoresearch.training.tune import tune

SMALL = {
    "data": {"vocab_size": 260},
    "model": {"n_layer": 1, "n_head": 1, "n_embd": 16, "sequence_len": 8},
    "train": {"device_batch_size": 2, "total_batch_size": 16, "max_steps": 3},
}
DOORS = {"mlx_autoresearch.recipe.interface", "mlx_autoresearch.recipe.settings"}


def test_trusted_code_imports_the_interface_and_the_settings_only() -> None:
    graph = grimp.build_graph("mlx_autoresearch", cache_dir=None)
    found = {
        f"{importer} imports {imported}"
        for imported in graph.modules
        if imported.startswith("mlx_autoresearch.recipe") and imported not in DOORS
        for importer in graph.find_modules_that_directly_import(imported)
        if not importer.startswith("mlx_autoresearch.recipe")
    }
    assert found == {  # the public names of the package
        "mlx_autoresearch imports mlx_autoresearch.recipe.model",
        "mlx_autoresearch imports mlx_autoresearch.recipe.optimizer",
    }


def test_the_interface_builds_what_a_step_needs() -> None:
    config = validate_config(SMALL, "the test")
    mx.random.seed(0)
    model = interface.make_model(config.for_recipe(), mx.float32)
    assert model.settings == Settings()
    optimizer = interface.make_optimizer(model, config.for_recipe())
    step = interface.make_step(model, optimizer, config.for_recipe())
    pair = mx.zeros((2, 8), mx.int32), mx.ones((2, 8), mx.int32)
    rates = [interface.set_schedule(optimizer, config.for_recipe(), progress=p, step=1) for p in (0.0, 0.5, 1.0)]
    assert rates == [1.0, 1.0, 0.0]
    before = model.lm_head.weight
    interface.trace_step(model, optimizer, config.for_recipe())
    step(iter([pair]))
    assert mx.array_equal(model.lm_head.weight, before).item()
    assert optimizer.state["scalars"]["step"].item() == 1


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> type:
    """A recipe with one setting."""
    settings = dataclasses.make_dataclass("Settings", [("z_loss", float, 0.0)], frozen=True)
    monkeypatch.setattr(recipe_module, "Settings", settings)
    return settings


def test_a_declared_setting_reaches_the_model(declared: type) -> None:
    config = validate_config(SMALL | {"recipe": {"z_loss": 1}}, "the test")
    assert recipe_settings(config.recipe) == declared(z_loss=1.0)
    assert interface.make_model(config.for_recipe(), mx.float32).settings == declared(z_loss=1.0)


BAD = "unknown key recipe.z_loss; this recipe declares no settings (they stand in recipe/settings.py)"


def test_a_wrong_section_is_refused_before_any_work(tmp_path: Path) -> None:
    """No data is prepared here, no folder made, no GPU needed to be told."""
    config = validate_config(SMALL | {"recipe": {"z_loss": 1}}, "the test")
    for refuse in (
        lambda: trainer.train(config, runs=tmp_path / "runs"),
        lambda: tune(config, again=False),
    ):
        with pytest.raises(UserError) as error:
            refuse()
        assert str(error.value) == BAD
    assert not (tmp_path / "runs").exists()


def test_a_run_of_another_recipe_is_neither_resumed_nor_evaluated(tmp_path: Path) -> None:
    config = validate_config(SMALL | {"recipe": {"z_loss": 1}}, "the test")
    run = Run.create_at(tmp_path / "run", config, {"data": {}})
    before = {path: path.read_bytes() for path in run.path.iterdir()}
    with pytest.raises(UserError) as error:
        trainer.resume(run.path)
    assert str(error.value) == BAD
    assert {path: path.read_bytes() for path in run.path.iterdir()} == before


@pytest.mark.parametrize("command", [["config"], ["train"], ["kernels", "tune"], ["kernels", "bench"]])
def test_commands_refuse_a_wrong_section_in_one_line(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mlx_autoresearch", *command, "recipe.z_loss=1"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {BAD}\n")


def test_commands_show_a_declared_setting(declared: type, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("recipe: {z_loss: 0.5}\n")
    result = CliRunner().invoke(app, ["config", str(tmp_path / "a.yaml"), "recipe.z_loss=0.25"])
    assert result.exit_code == 0
    assert "\nrecipe:\n  z_loss: 0.25\n" in result.output


def test_a_sweep_over_a_setting_of_the_recipe(tmp_path: Path, declared: type, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base.yaml").write_text(Config().to_yaml())
    file = tmp_path / "sweep.yaml"
    file.write_text("config: base.yaml\nspace: {recipe.z_loss: [0.0, 0.1], optimizer.matrix_lr: [0.02, 0.04]}\n")
    assert check_points(load_sweep(file)).recipe == {"z_loss": 0.0}
    monkeypatch.setattr(recipe_module, "Settings", Settings)
    with pytest.raises(UserError, match="cannot be trained: unknown key recipe"):
        check_points(load_sweep(file))


def test_the_settings_can_be_checked_without_mlx() -> None:
    """`config` and `sweep` work, or fail in one line, where MLX has no backend."""
    script = "import sys; import mlx_autoresearch.recipe.settings; print('mlx.core' in sys.modules)"
    source = Path(str(mlx_autoresearch.__file__)).parents[1]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=source)
    assert done.stdout == "False\n", done.stderr


def test_the_example_in_the_docstring_works() -> None:
    body = "\n\n".join(str(recipe_module.__doc__).split("\n\n")[2:4])
    names: dict = {}
    exec("from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Settings:\n" + body, names)
    assert load_config(None, ["recipe.z_loss=1e-4"]).recipe == {"z_loss": 1e-4}
    read = recipe_module.read_settings
    assert read(names["Settings"], {"z_loss": 1e-4}).z_loss == 1e-4
    with pytest.raises(UserError, match=r"recipe.z_loss must be at least 0, got -1.0"):
        read(names["Settings"], {"z_loss": -1})
