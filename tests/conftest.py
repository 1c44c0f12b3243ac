"""For all tests: our package is imported first, so that MLX finds the fast BLAS, and the user's cache is left alone."""

import fcntl
import signal
from collections.abc import Iterator

import psutil
import pytest

import mlx_autoresearch  # noqa: F401  before anything imports mlx.core

import mlx.core as mx  # isort: skip

from mlx_autoresearch.machine import compiled, device, system
from mlx_autoresearch.simulator import compilers
from tests.support import mac as simulated_mac
from tests.support.compiler_paths import compiler_path
from tests.support.mac import file_control, processes

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
        pytest.skip("no GPU, and no C++ compiler the simulator can use: clang++ 17, g++ 12 (on arm64: 13), or newer")
    return "simulator"


_REMEMBERED = (
    system.macos_version,
    system.macos_build,
    system._has_command_line_tools,
    compilers._identify,
    device.cpu_compiler_available,
    compiled.compiler_version,
)


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This test, and every process that it starts, is on a simulated Mac; see tests/support/mac."""
    for name, value in simulated_mac.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(system, "name", lambda: "darwin")
    monkeypatch.setattr(system, "processor", lambda: "arm64")
    for name, value in file_control.REPLACED.items():
        monkeypatch.setattr(fcntl, name, value, raising=False)
    monkeypatch.setattr(psutil.Process, "environ", processes.hide_environments(psutil))
    processes.load_libproc()
    monkeypatch.setattr(mx, "device_info", lambda *_: simulated_mac.MODELS[simulated_mac.DEFAULT].device_info())
    _forget_the_machine()
    yield
    _forget_the_machine()


def _forget_the_machine() -> None:
    for remembered in _REMEMBERED:
        remembered.cache_clear()
