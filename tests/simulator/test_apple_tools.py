"""Building and placing kernels with Apple's tools, which stand-ins play: see tests/support/mac/bin."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import pytest

from mlx_autoresearch.simulator import Kernel, find_compiler, run, symbols
from mlx_autoresearch.simulator.build import cache_folder
from tests.support.compiler_paths import compiler_path

pytestmark = [
    pytest.mark.usefixtures("mac"),
    pytest.mark.skipif(not compiler_path("clang"), reason="no clang++ 17 or newer, which plays Apple's"),
]
# Faults on three lines, one of them in an inlined function.
SOURCE = """
uint i = thread_position_in_grid.x;
y[i + 900] = x[i];
y[0] = past(x);
y[i + 800] = x[i];
"""
HEADER = "\ntemplate <typename P> METAL_FUNC float past(P x) {\n  return x[700];\n}\n"


@pytest.fixture
def apple(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with nothing in it, and Apple's clang; where atos notes its calls."""
    monkeypatch.setenv("MLX_AUTORESEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SIMULATED_ATOS", str(tmp_path / "atos"))
    find_compiler.__globals__["_identify"].cache_clear()
    assert find_compiler().family == "apple"
    return tmp_path / "atos"


def faults() -> dict[tuple[str, int], str]:
    kernel = Kernel("mine", ["x"], ["y"], SOURCE, HEADER)
    x = mx.zeros((16,))
    done = run(kernel, [x], grid=(16, 1, 1), threadgroup=(16, 1, 1), output_shapes=[(16,)], output_dtypes=[mx.float32])
    return {(f.file, f.line): f.what for f in done.findings if "out-of-bounds" in f.what}


def test_every_fault_is_placed_with_one_call_of_atos_for_all(apple: Path) -> None:
    assert faults() == {
        ("mine.metal", 3): "device-out-of-bounds",
        ("mine.metal", 5): "device-out-of-bounds",
        ("mine.header", 3): "device-out-of-bounds",
    }
    assert len(apple.read_text().splitlines()) <= len(symbols._BACK)


def test_symbols_of_a_build_that_was_cut_short_are_replaced(apple: Path) -> None:
    found = faults()
    (library,) = cache_folder().glob("mine-*.so")
    left = Path(f"{library}.dSYM/Contents/Resources/DWARF", library.name)
    assert left.exists()
    left.write_bytes(b"half")
    library.unlink()  # killed between the symbols and the library
    symbols._placed.clear()
    assert faults() == found
    assert left.read_bytes() != b"half"
