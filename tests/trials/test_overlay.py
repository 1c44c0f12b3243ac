from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlx_autoresearch.research.guard import integrity
from mlx_autoresearch.trials import overlay
from tests.support.laboratory import git, make_repository


def python(code: Path, script: str) -> str:
    start = "import sys\nfrom pathlib import Path\nfrom mlx_autoresearch.trials import overlay\n"
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
