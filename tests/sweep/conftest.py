from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlx_autoresearch.config.load import validate_config
from mlx_autoresearch.config.yaml_text import dump_yaml
from mlx_autoresearch.data.prepare import prepare
from mlx_autoresearch.machine.paths import cache_dir
from mlx_autoresearch.report import write as report_write
from mlx_autoresearch.sweep import plots, worker
from tests.support.corpus import make_corpus, tiny_settings
from tests.support.sweeps import Sweeper, free_trial


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration's file, its data prepared."""
    folder = tmp_path_factory.mktemp("base")
    values = tiny_settings(make_corpus(folder / "text"), max_steps=20)
    prepare(validate_config(values, "the test").data.source, vocab_size=300, cache_dir=cache_dir(), quiet=True)
    (folder / "base.yaml").write_text(dump_yaml(values))
    return folder / "base.yaml"


@pytest.fixture
def file(tmp_path: Path, base: Path) -> Sweeper:
    """Writes a sweep's file over the base, and returns its path."""

    def write(**fields: Any) -> Path:
        path = tmp_path / "lr.yaml"
        path.write_text(dump_yaml({"config": str(base), "space": {"optimizer.matrix_lr": [0.01, 0.1, 0.04]}} | fields))
        return path

    return write


@pytest.fixture(autouse=True)
def _free(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Runs that cost nothing, and pages for those tests only that ask for them."""
    monkeypatch.setattr(worker, "run_trial", free_trial)
    if "pages" not in request.fixturenames:
        monkeypatch.setattr(report_write, "write", lambda *_, **__: None)
        monkeypatch.setattr(plots, "draw", lambda _: [])


@pytest.fixture
def pages() -> None:
    """Asks for report.html and the plots."""
