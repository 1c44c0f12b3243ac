from pathlib import Path

import pytest

from mlx_autoresearch.config.settings import Config
from tests.support.corpus import make_corpus
from tests.support.laboratory import make_config, make_repository


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A configuration that trains in half a second."""
    return make_config(make_corpus(tmp_path_factory.mktemp("text") / "corpus"))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A checkout of its own."""
    return make_repository(tmp_path / "checkout")
