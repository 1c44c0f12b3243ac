"""What an agent left in its folder: what is taken, what is left out, what is refused, each in one line."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlx_autoresearch.research import handover
from mlx_autoresearch.research.editable import EXPERIMENT
from mlx_autoresearch.research.handover import Entry, Handover, Refused, read_handover
from tests.support.laboratory import git

RECIPE = "src/mlx_autoresearch/recipe"
FILES = {
    EXPERIMENT: b"a: 1\n",
    f"{RECIPE}/model.py": b"x = 1\n",
    f"{RECIPE}/kernels/norm.py": b"y = 1\n",
    "custom_kernels/rope.metal": b"kernel\n",
    "src/mlx_autoresearch/metric/bits.py": b"z = 1\n",
    "README.md": b"a checkout\n",
    ".gitignore": b"*.log\n",
}


def entry(content: bytes, mode: str = "100644", hash: Callable[[bytes], Any] = hashlib.sha1) -> Entry:
    return Entry(mode, hash(b"blob %d\0" % len(content) + content).hexdigest(), len(content))


COMMIT = {path: entry(content) for path, content in FILES.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An agent's folder, as it got it."""
    for path, content in FILES.items():
        (tmp_path / "left" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "left" / path).write_bytes(content)
    return tmp_path / "left"


def replaced(path: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Something else in the place of a file or folder."""

    def change(folder: Path) -> None:
        (folder / path).rename(folder / ".moved")
        make(folder / path)

    return change


def new(path: str | bytes, content: bytes = b"") -> Callable[[Path], object]:
    return lambda folder: (folder / os.fsdecode(path)).write_bytes(content)


def bind(path: Path) -> None:
    """A socket; its address may have 100 characters only."""
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def sparse(path: Path, size: int) -> None:
    path.touch()
    os.truncate(path, size)


def many(folder: Path, count: int, size: int = 1) -> None:
    (folder / "custom_kernels/many").mkdir()
    for number in range(count):
        (folder / f"custom_kernels/many/{number}.metal").write_bytes(b"x" * size)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a fifo as the configuration": (replaced(EXPERIMENT, os.mkfifo), f"{EXPERIMENT} is not a regular file"),
    "a folder as the configuration": (replaced(EXPERIMENT, Path.mkdir), f"{EXPERIMENT} is not a regular file"),
    "a link as the configuration": (
        replaced(EXPERIMENT, lambda p: p.symlink_to("../.moved")),
        f"{EXPERIMENT} is not a regular file",
    ),
    "a link to itself": (replaced("research", lambda p: p.symlink_to("research")), "research is not a folder"),
    "a link as src": (replaced("src", lambda p: p.symlink_to(".moved")), "src is not a folder"),
    "a file as a folder": (replaced("custom_kernels", Path.touch), "custom_kernels is not a folder"),
    "a fifo as a folder": (replaced(RECIPE, os.mkfifo), f"{RECIPE} is not a folder"),
    "a link as code": (replaced(f"{RECIPE}/model.py", lambda p: p.symlink_to("/etc/passwd")), "model.py is not a reg"),
    "a link as a file of others": (replaced("README.md", lambda p: p.symlink_to(".moved")), "README.md is not a regul"),
    "a new link": (lambda f: (f / "custom_kernels/a.metal").symlink_to("rope.metal"), "a.metal is not a regular file"),
    "a new link to a folder": (lambda f: (f / "custom_kernels/a").symlink_to("/"), "custom_kernels/a is not a regular"),
    "a new fifo": (lambda f: os.mkfifo(f / RECIPE / "a.py"), f"{RECIPE}/a.py is not a regular file"),
    "a socket": (lambda f: bind(f / "custom_kernels/a"), "custom_kernels/a is not a regular file"),
    "a line break": (new("custom_kernels/a\nb.metal"), "custom_kernels/a b.metal may not have this name"),
    "a name that is not UTF-8": (new(b"custom_kernels/\xff.metal"), "custom_kernels/\ufffd.metal may not have this"),
    "an invisible character": (new("custom_kernels/\u200c.git"), "custom_kernels/\ufffd.git may not have this name"),
    "an escape": (new("custom_kernels/\x1b[31ma"), "custom_kernels/a may not have this name"),
    "another alphabet": (new(f"{RECIPE}/m\u043edel.py"), f"{RECIPE}/m\u043edel.py may not have this name"),
    "git's folder on Windows": (lambda f: (f / "custom_kernels/git~1").mkdir(), "git~1 may not have this name"),
    "a space": (new("custom_kernels/a "), "custom_kernels/a may not have this name"),
    "a backslash": (new("custom_kernels/a\\b"), "may not have this name"),
    "an option": (new("custom_kernels/--help"), "custom_kernels/--help may not have this name"),
    "a long name": (new(f"custom_kernels/{'a' * 240}"), "has a path of more than 200 characters"),
    "a deep folder": (lambda f: (f / "custom_kernels" / "/".join("a" * 120)).mkdir(parents=True), "more than 200 char"),
    "a large file": (lambda f: sparse(f / "custom_kernels/a.metal", 10 << 30), "a.metal is larger than 1,000,000 byt"),
    "a large file that was there": (lambda f: sparse(f / "README.md", 10 << 30), "README.md is larger than 1,000,000"),
    "a large configuration": (new(EXPERIMENT, b"#" * 100_001), f"{EXPERIMENT} is larger than 100,000 bytes"),
    "many files": (lambda f: many(f, 201), "more than 200 files are new or changed"),
    "much in all": (lambda f: many(f, 5, 900_000), "are larger than 4,000,000 bytes together"),
    "many names": (lambda f: many(f, 0) or [(f / f"{i}.txt").touch() for i in range(51)], "more than 50 new files"),
    "no text": (new("custom_kernels/a.bin", b"\xff\xfe"), "custom_kernels/a.bin is not UTF-8 text"),
    "text with a zero": (new(f"{RECIPE}/model.py", b"x\0"), f"{RECIPE}/model.py is not UTF-8 text"),
    "no folder": (lambda f: f.rename(f.with_name("moved")), "the agent's folder cannot be read: No such file"),
    "a link as the folder": (
        lambda f: (f.rename(f.with_name("moved")), f.symlink_to("moved")),
        "the agent's folder cannot be read: ",
    ),
    "a file as the folder": (
        lambda f: (f.rename(f.with_name("moved")), f.touch()),
        "the agent's folder cannot be read: Not a directory",
    ),
}


@pytest.mark.parametrize(("change", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_plain_file_of_moderate_size_is_refused_in_one_line(
    folder: Path, change: Callable[[Path], object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "50" in said:
        monkeypatch.setattr(handover, "MOST_NEW_NAMES", 50)
    try:
        change(folder)
    except OSError as error:
        pytest.skip(f"this file system has no such file: {error}")
    with pytest.raises(Refused) as refused:
        read_handover(folder, COMMIT)
    assert said in str(refused.value)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize("make", [os.mkfifo, bind, Path.mkdir, lambda p: p.symlink_to("rope.metal")])
def test_a_file_that_is_exchanged_after_it_was_looked_at_is_refused(
    folder: Path, make: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    regular, look = os.stat(folder / "README.md"), os.stat
    make(folder / "custom_kernels/a.metal")
    monkeypatch.setattr(os, "stat", lambda p, **how: regular if p == "a.metal" else look(p, **how))
    with pytest.raises(Refused, match=r"custom_kernels/a\.metal (is not a regular file|cannot be read)"):
        read_handover(folder, COMMIT)


@pytest.mark.parametrize("path", ["custom_kernels/rope.metal", "custom_kernels", RECIPE])
def test_what_may_not_be_read_is_refused(folder: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As mode 0 does it for everybody but root."""
    original = os.open

    def refusing(name: str, *arguments: Any, **how: Any) -> int:
        if name == path.rpartition("/")[2]:
            raise PermissionError(13, "Permission denied")
        return original(name, *arguments, **how)

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(Refused, match=f"{path} cannot be read: Permission denied"):
        read_handover(folder, COMMIT)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can make a device")
def test_a_device_is_not_opened(folder: Path) -> None:
    os.mknod(folder / "custom_kernels/a.metal", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    with pytest.raises(Refused, match="is not a regular file"):
        read_handover(folder, COMMIT)


def test_two_names_that_are_one_on_a_mac_are_refused(folder: Path) -> None:
    if (folder / "readme.md").exists():
        pytest.skip("this file system takes them for one")
    for path, said in [
        ("custom_kernels/Rope.metal", "custom_kernels/Rope.metal and custom_kernels/rope.metal differ in upper and"),
        (f"{RECIPE}/Kernels/a.py", f"{RECIPE}/Kernels and {RECIPE}/kernels differ in upper and lower case only"),
    ]:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).touch()
        with pytest.raises(Refused, match=said):
            read_handover(folder, COMMIT)
        (folder / path).unlink()


def test_a_file_may_be_renamed_in_case_only(folder: Path) -> None:
    (folder / "custom_kernels/rope.metal").rename(folder / "custom_kernels/Rope.metal")
    assert read_handover(folder, COMMIT).files == {
        "custom_kernels/Rope.metal": b"kernel\n",
        "custom_kernels/rope.metal": None,
    }


def test_what_differs_is_taken(folder: Path) -> None:
    assert read_handover(folder, COMMIT) == Handover({}, [])
    (folder / EXPERIMENT).write_bytes(b"a: 2\n")
    (folder / "README.md").write_bytes(b"A checkout\n")
    (folder / "custom_kernels/rope.metal").unlink()
    (folder / RECIPE / "kernels/norm.py").unlink()
    (folder / RECIPE / "kernels").rmdir()
    (folder / RECIPE / "more/deep").mkdir(parents=True)
    (folder / RECIPE / "more/deep/a-1.0+b_.py").write_bytes(b"")
    (folder / RECIPE / "empty").mkdir()
    assert read_handover(folder, COMMIT) == Handover(
        {
            EXPERIMENT: b"a: 2\n",
            "README.md": b"A checkout\n",
            "custom_kernels/rope.metal": None,
            f"{RECIPE}/kernels/norm.py": None,
            f"{RECIPE}/more/deep/a-1.0+b_.py": b"",
        },
        [],
    )


def test_modes_and_times_are_no_change(folder: Path) -> None:
    for path in FILES:
        (folder / path).chmod(0o777)
        os.utime(folder / path, (0, 0))
    assert read_handover(folder, COMMIT) == Handover({}, [])


def test_new_files_where_there_may_be_none_are_left_out_whatever_they_are(folder: Path) -> None:
    (folder / "notes.txt").touch()
    (folder / "node_modules/deep").mkdir(parents=True)
    os.mkfifo(folder / "src/pipe")
    (folder / "src/mlx_autoresearch/metric/new.py").touch()
    (folder / "research/other.yaml").symlink_to("/etc/passwd")
    assert read_handover(folder, COMMIT) == Handover(
        {},
        ["node_modules", "notes.txt", "research/other.yaml", "src/mlx_autoresearch/metric/new.py", "src/pipe"],
    )


LITTER = [
    ".DS_Store", "._rope.metal", "__pycache__/x.cpython-312.pyc", "y.pyc", ".pytest_cache/README.md", ".rope.metal.swp",
    "rope.metal~", "#rope.metal#", ".#rope.metal", ".git/HEAD", ".gitattributes", ".venv/bin/python", "rope.metal.orig",
    ".ruff_cache/x", ".claude/settings.json", "Thumbs.db", ".GIT/config", ".git /config",
]  # fmt: skip


def test_what_systems_and_tools_leave_behind_is_no_change(folder: Path) -> None:
    """Byte code of `python -m compileall` used to be committed as a change of code."""
    for place in (folder, folder / "custom_kernels", folder / RECIPE, folder / RECIPE / "kernels"):
        for name in LITTER:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(b"\0")
        os.mkfifo(place / ".pipe")
    assert read_handover(folder, COMMIT) == Handover({}, [])


def test_a_repository_inside_is_a_folder_like_others(folder: Path) -> None:
    inner = folder / "custom_kernels/inner"
    git(folder, "init", "-q", str(inner))
    assert read_handover(folder, COMMIT) == Handover({}, [])
    (inner / "a.metal").write_bytes(b"kernel\n")
    git(inner, "add", "--all")
    git(inner, "commit", "-qm", "inner")
    assert read_handover(folder, COMMIT) == Handover({"custom_kernels/inner/a.metal": b"kernel\n"}, [])


def test_links_and_submodules_of_the_user_stay_as_they_are(folder: Path) -> None:
    commit = COMMIT | {"link": entry(b"README.md", "120000"), "module": Entry("160000", "0" * 40, -1)}
    assert read_handover(folder, commit).files == {"link": None}
    (folder / "link").symlink_to("README.md")
    (folder / "module/deep").mkdir(parents=True)
    assert read_handover(folder, commit) == Handover({}, [])
    (folder / "link").unlink()
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(Refused, match="link may not be changed"):
        read_handover(folder, commit)


def test_a_large_file_of_the_user_that_nobody_changed_is_no_change(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "MOST_BYTES", 3)
    assert read_handover(folder, COMMIT) == Handover({}, [])
    (folder / "README.md").write_bytes(b"A checkout\n")
    with pytest.raises(Refused, match=r"README\.md is larger than 3 bytes"):
        read_handover(folder, COMMIT)


def test_repositories_with_longer_ids_are_read_as_well(folder: Path) -> None:
    commit = {path: entry(content, hash=hashlib.sha256) for path, content in FILES.items()}
    assert read_handover(folder, commit) == Handover({}, [])


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
def test_no_file_stays_open(folder: Path) -> None:
    before = lowest_free_descriptor()
    read_handover(folder, COMMIT)
    os.mkfifo(folder / "custom_kernels/a")
    with pytest.raises(Refused):
        read_handover(folder, COMMIT)
    assert lowest_free_descriptor() == before


def lowest_free_descriptor() -> int:
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor
