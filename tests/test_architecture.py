"""Imports point one way: no circle among files, and no room reaches back to one above it. docs/architecture.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

import mlx_autoresearch

PACKAGE = "mlx_autoresearch"
FOLDER = Path(str(mlx_autoresearch.__file__)).parent
# From the top down. A room may import those below it, not those above it, nor its neighbours on the same line.
FLOORS = (
    {"cli"},
    {"research", "sweep"},
    {"report", "trials"},
    {"training"},
    {"recipe", "metric", "ledger", "sandbox"},
    {"kernels"},
    {"simulator"},
    {"config"},
    {"data"},
    {"machine"},
    {"plain_text", "methods"},
    {"errors"},
)


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    """Every import in the package, also inside functions and for type checkers only."""
    return grimp.build_graph(PACKAGE, cache_dir=None)


def circle(graph: grimp.ImportGraph) -> list[str]:
    """The files of one circle of imports; empty without one."""
    try:
        TopologicalSorter({m: graph.find_modules_directly_imported_by(m) for m in graph.modules}).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def arrows_back(graph: grimp.ImportGraph) -> Iterator[str]:
    """Imports of a room above, or of a neighbour."""
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    for importer in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            above, below = (name.split(".")[1] if "." in name else None for name in (importer, imported))
            if above in floor and below in floor and above != below and floor[above] >= floor[below]:
                yield f"{importer} imports {imported}"


def test_every_room_has_its_floor() -> None:
    there = {path.stem for path in FOLDER.iterdir() if (path / "__init__.py").is_file() or path.suffix == ".py"}
    assert there - {"__init__", "__main__"} == set().union(*FLOORS)


def test_no_files_import_each_other_in_a_circle(imports: grimp.ImportGraph) -> None:
    assert circle(imports) == []


def test_no_import_points_back(imports: grimp.ImportGraph) -> None:
    assert list(arrows_back(imports)) == []


def test_a_planted_circle_and_planted_arrows_are_noticed(imports: grimp.ImportGraph) -> None:
    planted = deepcopy(imports)
    planted.add_import(importer=f"{PACKAGE}.recipe.schedule", imported=f"{PACKAGE}.recipe.model")
    planted.add_import(importer=f"{PACKAGE}.recipe.model", imported=f"{PACKAGE}.recipe.schedule")
    assert {f"{PACKAGE}.recipe.schedule", f"{PACKAGE}.recipe.model"} <= set(circle(planted))
    planted = deepcopy(imports)
    planted.add_import(importer=f"{PACKAGE}.recipe.model", imported=f"{PACKAGE}.training.trainer")
    planted.add_import(importer=f"{PACKAGE}.metric.bits", imported=f"{PACKAGE}.recipe.fastmath")
    assert list(arrows_back(planted)) == [
        f"{PACKAGE}.metric.bits imports {PACKAGE}.recipe.fastmath",
        f"{PACKAGE}.recipe.model imports {PACKAGE}.training.trainer",
    ]


def test_the_tests_mirror_the_rooms() -> None:
    """A folder of tests has the name of the folder that it tests, of the package or, as benchmarks, beside it."""
    tests = Path(__file__).parent
    folders = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")}

    def tested(folder: Path) -> bool:
        return (FOLDER / folder).is_dir() or (tests.parent / folder).is_dir()

    assert len(folders) > 15
    assert [str(folder) for folder in sorted(folders) if not tested(folder)] == []


def test_few_files_lie_outside_the_rooms() -> None:
    assert len(list(FOLDER.glob("*.py"))) <= 6


def test_no_file_is_long_without_a_reason() -> None:
    """A file over 350 lines says in its first line that it is one idea, or one table."""
    for path in FOLDER.rglob("*"):
        if path.is_file() and path.suffix in (".py", ".h", ".cpp", ".cuh", ".def", ".js", ".css"):
            text = path.read_text(encoding="utf-8")
            first = text.split("\n", 1)[0]
            assert text.count("\n") <= 350 or "one table" in first or "one idea" in first, path


def test_the_architecture_page_names_files_that_exist() -> None:
    page = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = "|".join(set().union(*FLOORS))
    named = set(re.findall(rf"`((?:{rooms})(?:/[\w/.]*|\.py))`", page))
    assert len(named) > 40
    missing = {name for name in named if not (FOLDER / name).exists()}
    assert not missing


def test_one_file_asks_which_system_this_is() -> None:
    """Whatever differs on macOS can then be run on Linux: tests/support/mac answers in that file's place."""
    asks = re.compile(r"\bsys\.platform\b|\bos\.uname\b|\bplatform\.(?:system|machine|processor|mac_ver|uname)\b")
    found = {p.relative_to(FOLDER).as_posix() for p in FOLDER.rglob("*.py") if asks.search(p.read_text("utf-8"))}
    assert found == {"machine/system.py"}
