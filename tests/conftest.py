"""For all tests: our package is imported first, so that MLX finds the fast BLAS, and the user's cache is left alone."""

import signal
from collections.abc import Iterator

import pytest

import mlx_autoresearch  # noqa: F401  before any test imports mlx.core
from mlx_autoresearch.machine import device
from tests.support.compiler_paths import compiler_path

# A job in the background, or under nohup, is started with these ignored; tests of Ctrl-C would then wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(_number, signal.SIG_DFL)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLX_AUTORESEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def implementation() -> str:
    """What runs our kernels here: "metal" or "cuda" where MLX's default device is a GPU, else "simulator"."""
    if (language := device.kernel_backend()) is not None:
        return language
    if compiler_path() is None:
        pytest.skip("no GPU, and no C++ compiler the simulator can use: clang++ 17, g++ 12, or newer")
    return "simulator"
