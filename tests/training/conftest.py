from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.corpus import make_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few hundred made-up sentences."""
    return make_corpus(tmp_path_factory.mktemp("corpus"))
