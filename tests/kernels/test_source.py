"""A kernel's files are text that is read: no byte code, no other folder, and no size that cannot be had."""

from __future__ import annotations

import importlib.machinery
import py_compile
import random
from pathlib import Path

import pytest

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels.launch import launch
from mlx_autoresearch.kernels.registry import use_folder
from mlx_autoresearch.kernels.source import load_kernel

YAML = """\
inputs: {x: {dtype: float32, shape: [N]}, k: {dtype: int32, value: [N]}}
outputs: {y: {dtype: float32, shape: [N]}}
grid: [N, 1, 1]
threadgroup: [32, 1, 1]
cases: [{N: 20}]
random: {N: 1..80}
"""
HONEST = "def definition(x, k):\n    return {'y': 2 * x}\n"
HOSTILE = "def definition(x, k):\n    return {'y': 'hostile'}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("k.metal", "y[0] = 0;\n"), ("k.yaml", YAML), ("k.py", HONEST)):
        (tmp_path / name).write_text(text)
    return tmp_path


def described(folder: Path, old: str, new: str) -> Path:
    assert old in YAML
    (folder / "k.yaml").write_text(YAML.replace(old, new))
    return folder / "k.metal"


def hostile_byte_code(folder: Path, target: Path) -> None:
    """Byte code that Python would take for that of k.py: of the same size and time."""
    source = folder / "hostile.py"
    source.write_text(HOSTILE)
    target.parent.mkdir(exist_ok=True)
    py_compile.compile(str(source), str(target), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    source.unlink()


def test_byte_code_beside_a_definition_is_not_read(folder: Path) -> None:
    hostile_byte_code(folder, Path(importlib.util.cache_from_source(str(folder / "k.py"))))
    definition = load_kernel(folder / "k.metal").definition
    assert definition is not None and definition(1, 1) == {"y": 2}


def test_reading_a_definition_leaves_no_byte_code(folder: Path) -> None:
    load_kernel(folder / "k.metal")
    assert sorted(path.name for path in folder.iterdir()) == ["k.metal", "k.py", "k.yaml"]


@pytest.mark.parametrize(
    "name",
    ["k.pyc", "k.so", "k.abi3.so", "k.PY", "k.pyw", "k.txt", "k", ".k.py", "../k.py", "a/k.py", "..", "k.py.pyc"],
)
def test_a_definition_is_python_source_in_the_kernels_folder(name: str, folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    for place in (folder / "k.py", folder / "k.metal"):
        (inner / place.name).write_bytes(place.read_bytes())
    if name == "k.pyc":
        hostile_byte_code(inner, inner / name)
    metal = described(inner, "cases:", f"definition: {name}:definition\ncases:")
    with pytest.raises(UserError, match=r"definition: .* is no \.py file in the kernel's folder") as raised:
        load_kernel(metal)
    assert "\n" not in str(raised.value)


def test_an_absolute_definition_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"is no \.py file in the kernel's folder"):
        load_kernel(described(folder, "cases:", f"definition: {folder}/k.py:definition\ncases:"))


_ALIASES = b"".join(b"a%d: &a%d [%s]\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 10)) for i in range(1, 9))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("k.py", b"\xff"), ("k.py", b"x = (\n"), ("k.py", b"\0"), ("k.py", b"(" * 5000), ("k.metal", b"\xff")),
        *(("k.yaml", b"\xff"), ("k.yaml", YAML.encode() + b"random: {}"), ("k.yaml", b"[" * 10_000)),
        ("k.yaml", b"a0: &a0 {x: 1}\n" + _ALIASES),
    ],
    ids=lambda value: str(value)[:16],
)
def test_a_file_that_cannot_be_read_is_one_line(name: str, content: bytes, folder: Path) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(UserError) as raised:
        load_kernel(folder / "k.metal")
    assert name in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("shape: [N]}, k", "shape: [2 ** 40]}, k"),
        ("shape: [N]}, k", "shape: [N, 1e8]}, k"),
        ("shape: [N]}, k", "shape: [9**9**9]}, k"),
        ("shape: [N]}, k", "shape: [1e300]}, k"),
        ("{dtype: float32, shape: [N]}, k", "{dtype: int32, shape: [N], high: -5}, k"),
        ("{dtype: float32, shape: [N]}, k", "{dtype: float32, shape: [N], scale: float32}, k"),
        ("value: [N]", "value: [float32]"),
        ("value: [N]", "value: [2 ** 40]"),
        ("grid: [N", "grid: [10**10**8"),
        ("grid: [N", "grid: [2.0 ** 64"),
    ],
)
def test_an_absurd_size_is_one_line(old: str, new: str, folder: Path) -> None:
    file = load_kernel(described(folder, old, new))
    with pytest.raises(UserError) as raised:
        file.call(file.resolve({"N": 20}))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("choices", ["9..1", "1.." + "9" * 500, "5", "[]", "words", "{}"])
def test_random_sizes_that_cannot_be_drawn_are_one_line(choices: str, folder: Path) -> None:
    file = load_kernel(described(folder, "1..80", f"{choices}"))
    with pytest.raises(UserError, match=r"random\.N must be a range"):
        file.random_sizes(random.Random(0))


def test_a_launch_names_a_kernel_of_the_folder(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    use_folder(inner)
    try:
        for name in ("../k", str(folder / "k"), "inner/../../k"):
            with pytest.raises(ValueError, match="is no name of a kernel"):
                launch(name, "simulator", {}, N=8)
    finally:
        use_folder(None)
