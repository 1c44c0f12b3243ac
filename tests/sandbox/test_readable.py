"""Which files a program's installation consists of, by where the program lies; and what stays closed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mlx_autoresearch.sandbox import readable
from mlx_autoresearch.sandbox.readable import private_places, program_files, python_files, system_files


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


def program(path: Path, text: str = "binary") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_an_npm_package_and_the_node_of_nvm(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = program(home / ".nvm/versions/node/v22/bin/node")
    script = program(home / ".npm-global/lib/node_modules/@who/agent/cli.js", "#!/usr/bin/env node\n")
    link = home / ".npm-global/bin/agent"
    link.parent.mkdir()
    link.symlink_to("../lib/node_modules/@who/agent/cli.js")
    monkeypatch.setenv("PATH", str(node.parent))
    found = {Path(path).resolve() for path in program_files(str(link))}
    assert {home / ".npm-global/lib/node_modules", home / ".nvm/versions/node/v22", script.resolve(), node} <= found
    assert not found & {home, home / ".nvm", home.parent}


def test_a_native_program_below_a_home(home: Path) -> None:
    """~/.local holds what other programs keep, keyrings among it: only the file is readable."""
    target = program(home / ".local/share/agent/versions/1.2")
    link = home / ".local/bin/agent"
    link.parent.mkdir()
    link.symlink_to(target)
    assert {Path(path) for path in program_files(str(link))} == {link, target}
    own = program(home / "bin/mine")
    assert list(program_files(str(own))) == [str(own)]


def test_a_program_of_pipx_and_its_interpreter(home: Path) -> None:
    python = program(home / "python/bin/python3")
    script = program(home / ".local/pipx/venvs/agent/bin/agent", f"#!{home}/.local/pipx/venvs/agent/bin/python\n")
    (script.parent / "python").symlink_to(python)
    link = home / ".local/bin/agent"
    link.parent.mkdir()
    link.symlink_to(script)
    found = {Path(path) for path in program_files(str(link))}
    assert {home / ".local/pipx/venvs/agent", home / "python"} <= found
    assert home / ".local" not in found


def test_a_checkout_is_no_installation(home: Path) -> None:
    (home / "project/.git").mkdir(parents=True)
    own = program(home / "project/bin/agent")
    assert list(program_files(str(own))) == [str(own)]


def test_a_script_that_is_no_text_and_a_program_that_is_gone(tmp_path: Path) -> None:
    odd = program(tmp_path / "odd")
    odd.write_bytes(b"#!\xff\xfe 'unclosed\n")
    assert list(program_files(str(odd))) == [str(odd)]
    assert list(program_files(str(tmp_path / "none"))) == [str(tmp_path / "none")]
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    assert set(program_files(str(loop))) == {str(loop)}


def test_the_folder_that_the_search_was_started_in_is_not_imported_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(Path.cwd()), *sys.path])
    assert str(Path.cwd()) not in set(python_files())
    assert str(Path.cwd()) in private_places()


def test_no_home_and_no_secrets_are_the_systems(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*readable._CUDA, "LD_LIBRARY_PATH", "DEVELOPER_DIR", "SDKROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    for path in system_files(network=True):
        assert path not in ("/", "/etc", "/home", "/root", "/proc", "/dev", "/run", "/var", "/tmp", "/etc/ssl"), path
        assert "private" not in path or path.startswith("/private/"), path
