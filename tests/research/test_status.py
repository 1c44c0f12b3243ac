"""`research status`, `best` and `report` look, and change nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.ledger.files import LOCK, SETTINGS
from mlx_autoresearch.report.write import write
from mlx_autoresearch.research import status
from mlx_autoresearch.research.home import Search
from mlx_autoresearch.research.status import find_search, status_text
from mlx_autoresearch.research.winner import Winner
from tests.support.laboratory import free_trial, make_search, run_search


@pytest.fixture
def search(repository: Path, tiny: Config) -> Search:
    config = make_search(tiny, seeds={"baseline": 2, "best": 1, "most": 2})
    search = Search.start(config, repository / "runs", repository, run_trial=free_trial)
    run_search(search)
    return search


@pytest.fixture
def read_only(search: Search) -> Iterator[Path]:
    """The home as another machine's mount shows it."""
    home = str(search.home)
    for arguments in (["--bind", home, home], ["-o", "remount,bind,ro", home]):
        if subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode:
            pytest.skip("no file system can be mounted here: that takes root")
    yield search.home
    subprocess.run(["umount", "-l", home], check=True)


def test_a_home_that_cannot_be_written_is_looked_at(read_only: Path) -> None:
    (line,) = [line for line in status_text(read_only).splitlines() if line.startswith("state:")]
    assert line.split(None, 1)[1] == "not running"
    assert Winner.of(read_only).record.number == 1
    with pytest.raises(UserError, match=f"cannot write the report in {read_only}: Read-only file system"):
        write(read_only)


def test_status_leaves_no_file(search: Search) -> None:
    (search.home / LOCK).unlink()
    status_text(search.home)
    assert not (search.home / LOCK).exists()
    with search.locked():
        assert "running" in status_text(search.home).splitlines()[2].split()


def test_a_lock_that_cannot_be_read_is_said(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(status, "is_free", refused)
    assert "unknown (Permission denied)" in status_text(search.home)


def test_a_name_in_other_letters_finds_the_folder_as_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file system takes one for the other. By two paths, a search would have two marks and worktrees."""
    (tmp_path / "night").mkdir()
    (tmp_path / "night" / SETTINGS).touch()
    is_file, samefile = Path.is_file, Path.samefile

    def small(path: Path) -> Path:
        return Path(str(path).replace("Night", "night"))

    monkeypatch.setattr(Path, "is_file", lambda path: is_file(small(path)))
    monkeypatch.setattr(Path, "samefile", lambda path, other: samefile(small(path), small(Path(other))))
    assert find_search("Night", str(tmp_path)) == tmp_path / "night"
    assert find_search(str(tmp_path / "Night"), None) == tmp_path / "night"
