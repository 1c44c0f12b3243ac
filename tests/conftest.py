"""For all tests: our package is imported first, so that MLX finds the fast BLAS, and the user's cache is left alone."""

from collections.abc import Iterator

import pytest

import mlx_autoresearch  # noqa: F401  before any test imports mlx.core


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLX_AUTORESEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
