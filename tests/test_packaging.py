"""The wheel, the Makefile and the set-up script, the last with stand-ins for uv, uname and nvidia-smi."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import mlx_autoresearch

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_wheel_holds_the_package_and_the_kernels(wheel: zipfile.ZipFile):
    names = wheel.namelist()
    source = ROOT / "src"
    for file in [*(ROOT / "custom_kernels").rglob("*"), *source.rglob("*.py"), *source.rglob("py.typed")]:
        place = (
            f"mlx_autoresearch/{file.relative_to(ROOT)}" if "custom_kernels" in file.parts else file.relative_to(source)
        )
        assert str(place) in names
    assert all(name.split("/")[0].startswith("mlx_autoresearch") for name in names)


def test_wheel_declares_command_and_version(wheel: zipfile.ZipFile):
    info = f"mlx_autoresearch-{mlx_autoresearch.__version__}.dist-info"
    assert "mlx-autoresearch = mlx_autoresearch.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()


def test_the_two_backends_are_never_asked_for_together():
    """mlx-cpu and mlx-cuda-13 both hold mlx/lib/libmlx.so, so neither may be a plain dependency."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not [requirement for requirement in project["dependencies"] if requirement.startswith("mlx[")]
    extras = project["optional-dependencies"]
    assert "mlx[cpu]" in extras["cpu"][0]
    assert "mlx[cuda13]" in extras["cuda"][0]


def test_every_dependency_says_what_it_is_for():
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    requirements = [line for line in lines if line.startswith('    "') and ">=" in line]
    assert len(requirements) > 10
    assert [line for line in requirements if "# " not in line] == []


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What `make` and set-up need of a clone, and in `bin` a uv that writes down its arguments and makes nothing."""
    for file in ("Makefile", "pyproject.toml", "scripts/setup.sh"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    (tmp_path / "bin").mkdir()
    (tmp_path / ".venv").mkdir()
    installed = 'printf "#!/bin/sh\\n[ -z \\"\\$HIDDEN\\" ]\\n" >.venv/bin/python; chmod +x .venv/bin/python'
    stand_in(tmp_path, "uv", f'echo "$@" >>uv.log; mkdir -p .venv/bin; {installed}; [ "${{UV_FAILS:-}}" != "$1" ]')
    stand_in(tmp_path, "sw_vers", 'echo "${MACOS:-15.5}"')
    stand_in(tmp_path, "sysctl", 'echo "${APPLE_SILICON:-0}"')
    stand_in(tmp_path, "chflags", 'echo "$@" >>chflags.log')
    pretend = "import platform; platform.machine = lambda: '${CHIP:-arm64}'"
    stand_in(tmp_path, "mypython", f'code=$2; shift 2; exec {sys.executable} -c "{pretend}\n$code" "$@"')
    stand_in(tmp_path, "uname", 'if [ "$1" = -s ]; then echo "${SYSTEM:-Linux}"; else echo "${MACHINE:-x86_64}"; fi')
    stand_in(tmp_path, "nvidia-smi", '[ -n "${GPU:-}" ]')
    return tmp_path


def stand_in(checkout: Path, name: str, script: str) -> None:
    file = checkout / "bin" / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def setup(checkout: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    base = {key: value for key, value in os.environ.items() if key not in ("EXTRA", "PYTHON")}
    python = "mypython" if environ.get("SYSTEM") == "Darwin" else sys.executable
    env = base | {"PATH": f"{checkout / 'bin'}:{os.environ['PATH']}", "PYTHON": python} | environ
    command = ["sh", "scripts/setup.sh", *arguments]
    return subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, check=False)


def asked(checkout: Path) -> str:
    """What the last call of uv was told to install."""
    return (checkout / "uv.log").read_text().splitlines()[-1].split()[-1]


@pytest.mark.parametrize(
    ("environ", "package"),
    [
        ({"SYSTEM": "Darwin", "MACHINE": "arm64"}, "."),
        ({"SYSTEM": "Linux"}, ".[cpu]"),
        ({"SYSTEM": "Linux", "MACHINE": "aarch64"}, ".[cpu]"),
        ({"SYSTEM": "Linux", "GPU": "1"}, ".[cuda]"),
        ({"SYSTEM": "Linux", "GPU": "1", "EXTRA": "cpu"}, ".[cpu]"),
    ],
)
def test_setup_chooses_the_backend(checkout: Path, environ: dict[str, str], package: str):
    assert setup(checkout, **environ).returncode == 0
    assert asked(checkout) == package
    assert (checkout / ".venv/ready").is_file()
    assert not (checkout / ".venv/dev").exists()


@pytest.mark.parametrize(
    ("environ", "package"),
    [({"SYSTEM": "Darwin", "MACHINE": "arm64"}, ".[dev]"), ({"SYSTEM": "Linux", "GPU": "1"}, ".[cuda,dev]")],
)
def test_setup_adds_the_developers_tools(checkout: Path, environ: dict[str, str], package: str):
    assert setup(checkout, "dev", **environ).returncode == 0
    assert asked(checkout) == package
    assert (checkout / ".venv/dev").is_file()


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"SYSTEM": "Darwin", "MACHINE": "x86_64"}, "has an Intel processor"),
        ({"SYSTEM": "Darwin", "MACHINE": "x86_64", "APPLE_SILICON": "1"}, "`arch -arm64 zsh`"),
        ({"SYSTEM": "Darwin", "MACHINE": "arm64", "MACOS": "13.7.1"}, "macOS 14 or newer, and this is 13.7.1"),
        ({"SYSTEM": "Darwin", "MACHINE": "arm64", "CHIP": "x86_64"}, "not Python 3.11 or newer for Apple silicon"),
        ({"SYSTEM": "MINGW64_NT"}, "macOS and Linux"),
    ],
)
def test_setup_refuses_in_one_line_where_mlx_does_not_run(checkout: Path, environ: dict[str, str], words: str):
    done = setup(checkout, **environ)
    assert done.returncode != 0
    assert words in done.stderr
    assert len((done.stdout + done.stderr).splitlines()) == 1


@pytest.mark.parametrize(
    ("python", "words"),
    [
        ('case "$2" in *version_info*) exit 1 ;; esac', "Python 3.11"),
        ('case "$2" in *ensurepip*) exit 1 ;; esac', "python3-venv"),
    ],
)
def test_without_uv_setup_says_what_python_lacks(checkout: Path, python: str, words: str):
    (checkout / "bin/uv").unlink()
    stand_in(checkout, "mypython", python)
    for tool in ("sh", "cat", "rm", "echo"):
        (checkout / "bin" / tool).symlink_to(str(shutil.which(tool)))
    done = setup(checkout, PATH=str(checkout / "bin"), PYTHON="mypython")
    assert done.returncode != 0
    assert words in done.stderr
    assert len((done.stdout + done.stderr).splitlines()) == 1


@pytest.mark.parametrize("version", ["14.0", "15.5", "26.2"])
def test_on_a_mac_the_installed_package_is_made_visible(checkout: Path, version: str):
    """In folders that iCloud keeps in step, macOS hides what is in .venv, and Python skips hidden .pth files."""
    done = setup(checkout, SYSTEM="Darwin", MACHINE="arm64", MACOS=version)
    assert (done.returncode, done.stderr) == (0, "")
    assert (checkout / "chflags.log").read_text() == "-R nohidden .venv\n"
    assert (checkout / ".venv/ready").is_file()


def test_on_a_mac_a_package_that_cannot_be_imported_is_not_ready(checkout: Path):
    done = setup(checkout, SYSTEM="Darwin", MACHINE="arm64", HIDDEN="1")
    assert done.returncode != 0
    assert "out of those that iCloud keeps in step" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (checkout / ".venv/ready").exists()


def test_without_uv_a_mac_takes_the_first_native_interpreter(checkout: Path):
    (checkout / "bin/uv").unlink()
    (checkout / "bin/python3.13").symlink_to(checkout / "bin/mypython")
    done = setup(checkout, SYSTEM="Darwin", MACHINE="arm64", CHIP="x86_64", PYTHON="")
    assert done.returncode != 0
    assert "python3 is not Python 3.11 or newer for Apple silicon (arm64)" in done.stderr


def test_make_finds_the_package_on_a_mac_even_where_it_is_hidden(checkout: Path):
    """The flag may come back at any time."""
    base = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL")}
    env = base | {"PATH": f"{checkout / 'bin'}:{os.environ['PATH']}", "SYSTEM": "Darwin", "PYTHONPATH": "mine"}
    (checkout / "Makefile").write_text((checkout / "Makefile").read_text() + "\nshow: ; @echo $$PYTHONPATH\n")
    done = subprocess.run(["make", "show"], cwd=checkout, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == f"{checkout.resolve()}/src:mine\n"


def test_an_interrupted_install_is_not_taken_for_a_finished_one(checkout: Path):
    assert setup(checkout).returncode == 0
    (checkout / ".venv/half-written").touch()
    assert setup(checkout, "dev", UV_FAILS="pip").returncode != 0
    assert not (checkout / ".venv/ready").exists()
    assert not (checkout / ".venv/dev").exists()
    assert setup(checkout).returncode == 0
    assert not (checkout / ".venv/half-written").exists()


def test_another_backend_starts_from_an_empty_environment(checkout: Path):
    setup(checkout)
    (checkout / ".venv/libmlx.so").touch()
    setup(checkout, "dev")
    assert (checkout / ".venv/libmlx.so").exists()
    setup(checkout, GPU="1")
    assert not (checkout / ".venv/libmlx.so").exists()


def make(checkout: Path, *arguments: str) -> str:
    env = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "CONFIG", "ARGS")}
    command = ["make", *arguments]
    return subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, check=True).stdout


def test_make_sets_up_once_and_passes_arguments_on(checkout: Path):
    assert make(checkout, "-n", "prepare", "train").count("setup.sh") == 1
    assert make(checkout, "-n", "test").count("setup.sh dev") == 1
    for stamp in ("ready", "dev"):
        (checkout / ".venv" / stamp).touch()
    dry = make(checkout, "-n", "prepare", "train", "CONFIG=configs/x.yaml", "ARGS=train.time_budget=30").splitlines()
    command = ".venv/bin/mlx-autoresearch {} configs/x.yaml train.time_budget=30"
    assert dry == [command.format("prepare"), command.format("train")]
    assert "setup.sh" not in make(checkout, "-n", "test")
    later = (checkout / ".venv/dev").stat().st_mtime + 2
    os.utime(checkout / "pyproject.toml", (later, later))
    assert "setup.sh" in make(checkout, "-n", "train")


def test_make_help_lists_every_target(checkout: Path):
    phony = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY:"))
    assert [line.split()[0] for line in make(checkout).splitlines()] == phony.split()[1:]
