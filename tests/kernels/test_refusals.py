"""What is wrong in a description or definition is one line; nothing passes for right because nobody compared it."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels.source import load_kernel
from mlx_autoresearch.kernels.verify import compare

METAL = "const uint i = thread_position_in_grid.x;\nif (i < N) y[i] = 2 * x[i];\n"
YAML = """\
inputs: {x: {dtype: float32, shape: [N]}}
outputs: {y: {dtype: float32, shape: [N]}}
grid: [32, 1, 1]
threadgroup: [32, 1, 1]
template: {N: N}
cases: [{N: 20}]
"""
DEFINITION = "def definition(x):\n    return {'y': 2 * x}\n"


def verify(folder: Path, description: str = YAML, definition: str = DEFINITION) -> tuple[list, float]:
    for name, text in (("k.metal", METAL), ("k.yaml", description), ("k.py", definition)):
        (folder / name).write_text(text)
    file = load_kernel(folder / "k.metal")
    call = file.call(file.resolve(file.description.cases[0]))
    exact = [array for _, array in call.inputs.values()]
    return compare(file, call, [mx.array(2 * exact[0])], exact)


def test_what_is_right_passes(tmp_path: Path) -> None:
    assert verify(tmp_path) == ([], 0.0)


@pytest.mark.parametrize(
    "body, said",
    [
        ("return {'z': 2 * x}", "must return a dict of the outputs y, got z"),
        ("return {'y': 2 * x, 'z': x}", "must return a dict of the outputs y, got y, z"),
        ("return {}", "must return a dict of the outputs y, got none"),
        ("return {1: x}", "must return a dict of the outputs y, got 1"),
        ("return None", "must return a dict of the outputs y, got NoneType"),
        ("return [2 * x]", "must return a dict of the outputs y, got list"),
        ("return {'y': 'abc'}", "gives y as str, not as an array"),
        ("return {'y': [[1], [1, 2]]}", "gives y as list, not as an array"),
        ("return {'y': x[:3]}", r"gives y the shape \(3,\), the YAML \(20,\)"),
        ("raise KeyError('q')", "fails: KeyError: 'q'"),
        ("raise ValueError('two\\nlines')", "fails: ValueError: two lines"),
        ("raise SystemExit(0)", "fails: SystemExit: 0"),
    ],
)
def test_a_definition_gives_exactly_the_declared_outputs(tmp_path: Path, body: str, said: str) -> None:
    with pytest.raises(UserError, match=f"^k: the definition {said}"):
        verify(tmp_path, definition=f"def definition(x):\n    {body}\n")


@pytest.mark.parametrize(
    "text, said",
    [
        ("def definition(a, b): return {}", "fails: TypeError: definition.. got an unexpected keyword argument 'x'"),
        ("def (", "k.py: SyntaxError: "),
        ("import nothing_there", "k.py: ModuleNotFoundError: "),
        ("raise SystemExit(0)", "k.py: SystemExit: 0"),
        ("definition = 3", "k.py: expected a function 'definition'"),
    ],
)
def test_a_definition_that_cannot_be_called_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        verify(tmp_path, definition=text + "\n")


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("[{N: 20}]", "[]", "cases: List should have at least 1 item"),
        (
            "outputs: {y: {dtype: float32, shape: [N]}}",
            "outputs: {}",
            "outputs: Dictionary should have at least 1 item",
        ),
        ("shape: [N]}}\ngrid", "shape: [-N]}}\ngrid", "k: y: -N is -20, not a whole number from 0 up, for N=20"),
        ("shape: [N]}}\ngrid", "shape: [N / 3]}}\ngrid", "k: y: N / 3 is 6.66.*, not a whole number"),
        ("shape: [N]}}\noutputs", "shape: [2 - N]}}\noutputs", "k: x: 2 - N is -18, not a whole number"),
        ("grid: [32, 1, 1]", "grid: [0, 1, 1]", "k: grid: 0 is 0, not a whole number from 1 up"),
        ("grid: [32, 1, 1]", "grid: [float32, 1, 1]", "k: grid: float32 is float32, not a whole number"),
        ("threadgroup: [32, 1, 1]", "threadgroup: [N - 20, 1, 1]", "k: threadgroup: N - 20 is 0, not a whole number"),
        (
            "threadgroup: [32, 1, 1]",
            "threadgroup: [2 ** 0.5, 1, 1]",
            "k: threadgroup: .* is 1.41.*, not a whole number",
        ),
        ("[{N: 20}]", "[{N: abc}]", "k: x: N is abc, not a whole number"),
        (
            "{y: {dtype: float32",
            "{y: {dtype: fp32",
            "'fp32' in 'fp32' is unknown; known are the sizes N and the dtypes ",
        ),
        (
            "{x: {dtype: float32",
            "{x: {dtype: fp32",
            "'fp32' in 'fp32' is unknown; known are the sizes N and the dtypes ",
        ),
    ],
)
def test_a_description_that_makes_no_sense_is_said(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in YAML
    with pytest.raises(UserError, match=said):
        verify(tmp_path, YAML.replace(old, new))
