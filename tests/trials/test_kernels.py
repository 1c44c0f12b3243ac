"""A candidate's own Metal kernels are what a confined trial launches, although the engine is the installed one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mlx_autoresearch.config.load import with_settings
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.training.run import Run
from mlx_autoresearch.trials.limits import Limits
from mlx_autoresearch.trials.trial import run_trial
from tests.support.compiler_paths import needs_compiler
from tests.support.confinement import confined
from tests.support.corpus import make_corpus
from tests.support.laboratory import make_config, make_repository


@pytest.fixture(scope="module")
def custom(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """One layer whose operations all run our kernels, in the simulator; one step."""
    config = make_config(make_corpus(tmp_path_factory.mktemp("text") / "corpus"))
    settings = {
        "kernels": "custom",
        "model.n_layer": 1,
        "model.n_head": 1,
        "model.n_kv_head": 1,
        "model.sequence_len": 8,
        "train.max_steps": 1,
        "train.total_batch_size": 16,
        "train.device_batch_size": 2,
        "evaluate.eval_tokens": 32,
    }
    return with_settings(config, settings, "the test")


def first_loss(config: Config, folder: Path, code: Path) -> float:
    run_trial(config, seed=42, folder=folder, code=code, limits=Limits())
    return Run.open(folder).metrics()[0]["loss"]


def edited(honest: Path, folder: Path, file: str, old: str, new: str) -> Path:
    """A copy of a snapshot with one edit."""
    shutil.copytree(honest, folder)
    path = folder / "custom_kernels" / file
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    return folder


@confined
@needs_compiler
def test_a_confined_trial_launches_the_candidates_kernels(custom: Config, tmp_path: Path) -> None:
    """Also one that nobody has compiled before: a confined process cannot add it to the shared cache."""
    honest = make_repository(tmp_path / "honest")
    expected = first_loss(custom, tmp_path / "1", honest)
    kernel, loss = "softcapped_cross_entropy_loss_and_gradient.metal", "metal::log(sum) + cap * (top - v_label)"
    doubled = edited(honest, tmp_path / "doubled", kernel, loss, f"2.0f * ({loss})")
    assert first_loss(custom, tmp_path / "2", doubled) == pytest.approx(2 * expected, rel=1e-6)
    header = edited(honest, tmp_path / "header", "softcapped_cross_entropy.h", "What the", "A comment: what the")
    assert first_loss(custom, tmp_path / "3", header) == expected
