"""`launch`: the YAML's contract is kept, whatever runs the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels.launch import launch
from mlx_autoresearch.kernels.registry import use_folder
from mlx_autoresearch.simulator import KernelFault

YAML = """
inputs:
  x: {dtype: dtype, shape: [n, 2]}
  k: {dtype: int32, value: [n, 2 * n]}
  scale: {dtype: float32, value: [1 / sqrt(n)]}
outputs:
  y: {dtype: dtype, shape: [n, 2]}
template: {T: dtype}
grid: [2 * n, 1, 1]
threadgroup: [2, 1, 1]
cases: [{n: 3, dtype: float32}]
"""
BODY = "const uint i = thread_position_in_grid.x;\ny[i] = T(float(x[i]) * scale[0] + float(k[1]));\n"


@pytest.fixture(autouse=True)
def kernel(tmp_path: Path) -> Iterator[None]:
    write(tmp_path, BODY)
    use_folder(tmp_path)
    yield
    use_folder(None)


def write(folder: Path, body: str) -> None:
    (folder / "scaled.metal").write_text(body)
    (folder / "scaled.yaml").write_text(YAML)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_values_come_from_the_sizes(implementation, dtype: str) -> None:
    x = mx.arange(8).reshape(4, 2).astype(getattr(mx, dtype))
    (y,) = launch("scaled", implementation, {"x": x}, n=4, dtype=dtype)
    assert y.dtype == x.dtype and y.tolist() == [[8, 8.5], [9, 9.5], [10, 10.5], [11, 11.5]]


def test_runs_under_a_gradient(implementation) -> None:
    square = mx.custom_function(lambda x: launch("scaled", implementation, {"x": x}, n=4, dtype="float32")[0])
    square.vjp(lambda x, cotangent, _: launch("scaled", implementation, {"x": cotangent}, n=4, dtype="float32")[0])
    value, gradient = mx.value_and_grad(lambda x: square(2 * x).sum())(mx.ones((4, 2)))
    assert value.item() == 8 * 9.0
    assert gradient.tolist() == [[2 * 8.5] * 2] * 4


def test_an_input_that_breaks_the_contract_is_named(implementation) -> None:
    with pytest.raises(ValueError, match=r"\[scaled\] x must be \(3, 2\) of mlx.core.float32, got \(2, 3\)"):
        launch("scaled", implementation, {"x": mx.zeros((2, 3))}, n=3, dtype="float32")
    with pytest.raises(ValueError, match=r"\[scaled\] expected the inputs \['x', 'k', 'scale'\], got"):
        launch("scaled", implementation, {"z": mx.zeros((3, 2))}, n=3, dtype="float32")


def test_the_simulator_checks_every_launch(tmp_path: Path, implementation) -> None:
    if implementation != "simulator":
        pytest.skip("a GPU does not check")
    write(tmp_path, BODY.replace("x[i]", "x[i + 1]"))
    with pytest.raises(KernelFault, match="device-out-of-bounds"):
        launch("scaled", implementation, {"x": mx.zeros((3, 2))}, n=3, dtype="float32")


def test_another_folder_has_other_kernels_by_the_same_names(tmp_path: Path, implementation) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write(other, BODY.replace("float(k[1])", "2.0f * float(k[1])"))
    for folder, expected in ((tmp_path, 8.0), (other, 16.0), (tmp_path, 8.0)):
        use_folder(folder)
        (y,) = launch("scaled", implementation, {"x": mx.zeros((4, 2))}, n=4, dtype="float32")
        assert y.tolist() == [[expected] * 2] * 4


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"other\.metal does not exist"):
        launch("other", "simulator", {}, n=4)
    with pytest.raises(UserError, match="nowhere does not exist"):
        use_folder(tmp_path / "nowhere")
