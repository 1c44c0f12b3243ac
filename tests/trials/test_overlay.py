from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlx_autoresearch.research.guard import integrity
from mlx_autoresearch.trials import overlay
from tests.support.compiler_paths import needs_compiler
from tests.support.laboratory import git, make_repository


def python(code: Path, script: str, before: str = "") -> str:
    """What `script` prints in a process of its own, overlaid with `code`; `before` runs before the overlay."""
    start = f"import sys\nfrom pathlib import Path\nfrom mlx_autoresearch.trials import overlay\n{before}"
    start += "overlay.install(Path(sys.argv[1]))\n"
    done = subprocess.run(
        [sys.executable, "-c", start + script, str(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def code(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "code")


def test_editable_modules_come_from_the_snapshot_and_all_others_from_the_installation(code: Path) -> None:
    with (code / "src/mlx_autoresearch/recipe/schedule.py").open("a") as file:
        file.write("MINE = 1\n")
    (code / "src/mlx_autoresearch/metric/bits.py").write_text("raise SystemExit('forged')\n")
    (code / "src/mlx_autoresearch/recipe/kernels/new.py").write_text("from ..schedule import MINE\n")
    script = """
from mlx_autoresearch.training import trainer
from mlx_autoresearch.recipe import optimizer, schedule
from mlx_autoresearch.metric import bits
from mlx_autoresearch.kernels import registry
from mlx_autoresearch.recipe.kernels.new import MINE
assert schedule.MINE == MINE
print(MINE, optimizer.__file__, registry.kernel_folder(), bits.__file__, registry.__file__, sep="\\n")
"""
    mine, *paths = python(code, script).splitlines()
    assert mine == "1"
    assert [str(code) in path for path in paths] == [True, True, False, False]


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


KERNELS = """
import mlx_autoresearch
import mlx.core as mx
from mlx_autoresearch.kernels.launch import launch
def rope():
    x, frequencies = mx.ones((1, 1, 1, 32)), mx.zeros((16,), mx.uint64)
    given = {"x": x, "frequencies": frequencies}
    return launch("rope", "simulator", given, B=1, T=1, H=1, D=32, dtype="float32")[0]
"""


@needs_compiler
def test_a_snapshots_kernels_are_launched_although_the_engine_is_the_installed_one(code: Path) -> None:
    """A .metal file, a header, a YAML, a definition and a kernel of its own, each wrong in a way that shows."""
    kernels = code / "custom_kernels"
    edit(kernels / "rope.metal", "const float turned = a[j]", "const float turned = 2.0f * a[j]")
    edit(kernels / "norm.h", "x[j] = a * x[j] + b * y[j];", "x[j] = 3.0f * (a * x[j] + b * y[j]);")
    edit(kernels / "norm_rope_forward.yaml", "eps: 1.1920929e-07", "eps: 3.0")
    edit(kernels / "embedding.py", '{"out": weight[ids]}', '{"out": 5 * weight[ids]}')
    (kernels / "sevenfold.metal").write_text("const uint i = thread_position_in_grid.x;\ny[i] = 7.0f * x[i];\n")
    (kernels / "sevenfold.yaml").write_text(
        "inputs: {x: {dtype: float32, shape: [n]}}\noutputs: {y: {dtype: float32, shape: [n]}}\n"
        "grid: [n, 1, 1]\nthreadgroup: [1, 1, 1]\ncases: [{n: 8}]\n"
    )
    (code / "src/mlx_autoresearch/recipe/kernels/sevenfold.py").write_text(
        "from mlx_autoresearch.kernels.launch import launch\n\n\n"
        "def sevenfold(x):\n    return launch('sevenfold', 'simulator', {'x': x}, n=x.size)[0]\n"
    )
    script = """
import mlx_autoresearch
import mlx.core as mx
import numpy as np
from mlx_autoresearch.kernels import launch, registry
from mlx_autoresearch.recipe.kernels.residual_norm import residual_norm
from mlx_autoresearch.recipe.kernels.rope import norm_rope, rope
from mlx_autoresearch.recipe.kernels.sevenfold import sevenfold
x = mx.ones((1, 1, 1, 32))
print(rope(x, implementation="simulator")[0, 0, 0, 0].item())
print(residual_norm(x, x, implementation="simulator")[0][0, 0, 0, 0].item())
print(norm_rope(x, implementation="simulator")[0, 0, 0, 0].item())
print(sevenfold(mx.ones((8,)))[0].item())
definition = registry.find_kernel("embedding_forward").definition
print(definition(np.array([0]), np.ones((1, 1)))["out"].item())
print(launch.__file__)
"""
    *results, engine = python(code, script).splitlines()
    assert results == ["2.0", "6.0", "0.5", "7.0", "5.0"]
    assert str(code) not in engine


@needs_compiler
def test_nothing_that_was_launched_before_the_overlay_is_kept(code: Path) -> None:
    edit(code / "custom_kernels/rope.metal", "const float turned = a[j]", "const float turned = 2.0f * a[j]")
    script = "print(rope()[0, 0, 0, 0].item())\n"
    assert python(code, script, before=KERNELS + script).splitlines() == ["1.0", "2.0"]


def test_planted_bytecode_is_not_run(code: Path) -> None:
    import importlib.util
    import py_compile

    source = code / "src/mlx_autoresearch/recipe/schedule.py"
    honest = source.read_bytes()
    source.write_bytes(honest + b"FORGED = 1\n")
    cached = importlib.util.cache_from_source(str(source))
    py_compile.compile(str(source), cfile=cached, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    source.write_bytes(honest)
    script = "from mlx_autoresearch.recipe import schedule; print(hasattr(schedule, 'FORGED'))"
    assert python(code, script) == "False\n"


def test_an_overlay_that_comes_too_late_is_an_error(tmp_path: Path) -> None:
    import mlx_autoresearch.recipe.schedule  # noqa: F401

    with pytest.raises(RuntimeError, match="imported before the overlay"):
        overlay.install(tmp_path)


def test_the_installed_code_is_recognised_byte_for_byte(code: Path) -> None:
    git(code, "clean", "-fdxq")
    assert integrity.is_installed(code)
    extra = code / "src/mlx_autoresearch/recipe/kernels/extra.py"
    extra.write_text("")
    assert not integrity.is_installed(code)
    extra.unlink()
    with (code / "src/mlx_autoresearch/recipe/loss.py").open("a") as file:
        file.write("\n")
    assert not integrity.is_installed(code)
