from __future__ import annotations

import ast
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlx_autoresearch
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.research.guard import reader
from mlx_autoresearch.research.guard.scan import scan

ROOT = Path(mlx_autoresearch.__file__).parents[2]
OWN = [*ROOT.glob("src/mlx_autoresearch/recipe/**/*.py"), *ROOT.glob("custom_kernels/*.py")]
PATH = "src/mlx_autoresearch/recipe/model.py"


@pytest.mark.parametrize("file", OWN, ids=lambda file: "/".join(file.parts[-2:]))
def test_the_recipe_as_it_is_passes(file: Path) -> None:
    known = {"model.py": ["uses getattr with a computed name in getattr(mx, self.dtype_name)", "uses .load_weights"]}
    found = scan(str(file.relative_to(ROOT)), file.read_bytes(), None)
    assert [problem.split(": ", 1)[1] for problem in found] == known.get(file.name, [])


@pytest.mark.parametrize(
    "code", [b"\xff", b"x = '\xe4'", b"# coding: utf-8\nx = '\xe4'", b"\xff\xfex\x00", b"# coding: nosuch\n"]
)
def test_what_is_not_utf8_is_refused(code: bytes) -> None:
    assert scan(PATH, code, None)


def test_what_was_there_before_may_be_unreadable() -> None:
    for old in (b"def f(:", b"\xff", b"(" * 10_000):
        assert scan(PATH, b"x = 1\n", old) == []
        assert scan(PATH, b"import os\n", old) == [f"{PATH}:1: imports os"]


def test_many_problems_are_counted_and_warnings_are_not_shown(recwarn: pytest.WarningsRecorder) -> None:
    found = scan(PATH, b"x = '\\d'\n" + b"eval('1')\n" * 50, None)
    assert (len(found), found[-1]) == (21, f"{PATH}: and 30 more")
    assert len(recwarn) == 0


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import numpy as n", "imports numpy as n; use `import numpy as np`"),
        ("from mlx.core import fast", "imports fast from mlx.core; use mx.fast"),
        ("from mlx.nn import losses", "imports losses from mlx.nn; use nn.losses"),
        ("from .fastmath import mx", "use `import mlx.core as mx`"),
        ("import numpy as np\nf(np)", "uses the module np as a value; use what is in it by name"),
        ("F.format(1)", "use an f-string"),
        ("match x:\n    case P(y): pass", "matches P by position; name the attributes, as in Point(x=0)"),
        ("import mlx.core as mx\nmx.load('x')", "uses mlx.core.load"),
    ],
)
def test_a_problem_says_what_to_use_instead(code: str, said: str) -> None:
    assert said in scan(PATH, code.encode(), None)[0]


@pytest.mark.parametrize(
    "code",
    [
        "import math\nfrom functools import partial, lru_cache\nimport mlx.core as mx\nimport mlx.nn as nn",
        "from . import fastmath\nfrom .attention import attention\nfrom .kernels.registry import find_kernel",
        "import mlx.core as mx\nclass A:\n    def __init__(self):\n        self.x = mx.zeros(1)",
        "getattr(x, 'weight')",
        "x = {}\nx['a'] = 1\nself.transformer['h'] = []",
        "from mlx.utils import tree_map, tree_flatten",
    ],
)
def test_ordinary_code_passes(code: str) -> None:
    assert scan(PATH, code.encode(), None) == []


def test_only_what_a_change_adds_counts() -> None:
    old = b"import os\n"
    assert scan(PATH, old + b"x = 1\n", old) == []
    assert scan(PATH, old + b"import os\n", old) == [f"{PATH}:2: imports os"]
    assert scan(PATH, b"getattr(f, 'x' + 'y')", b"getattr(mx, name)"), "another use than the old one"


@pytest.mark.parametrize(
    ("path", "code", "allowed"),
    [
        ("recipe/model.py", "from .kernels import rope", True),
        ("recipe/model.py", "from . import norm", True),
        ("recipe/model.py", "from .. import errors", False),
        ("recipe/model.py", "from ..errors import UserError", True),
        ("recipe/model.py", "from ...math import exp", False),
        ("recipe/kernels/rope.py", "from ..norm import EPS", True),
        ("recipe/kernels/rope.py", "from ...kernels.launch import launch", True),
        ("recipe/kernels/rope.py", "from ...kernels.registry import find_kernel", False),
        ("recipe/kernels/rope.py", "from ...training.trainer import train", False),
        ("recipe/kernels/rope.py", "from ..training.trainer import train", True),  # recipe.training: an own module
        ("recipe/kernels/deep/er/new.py", "from ....model import GPT", True),
        ("recipe/kernels/deep/er/new.py", "from .....metric import bits", False),
        ("recipe/kernels/deep/er/new.py", "from .....errors import UserError", True),
        ("recipe/kernels/deep/er/new.py", "from ......os import path", False),
        ("recipe/kernels/__init__.py", "from ..norm import EPS", True),
        ("recipe/kernels/__init__.py", "from ..research import loop", True),
        ("recipe/kernels/__init__.py", "from ...research import loop", False),
    ],
)
def test_relative_imports_are_followed_at_any_depth(path: str, code: str, allowed: bool) -> None:
    assert (scan(f"src/mlx_autoresearch/{path}", code.encode(), None) == []) == allowed


def test_definitions_of_kernels_have_no_package_around_them() -> None:
    assert scan("custom_kernels/rope.py", b"from .launch import launch", None)
    assert scan("custom_kernels/rope.py", b"from mlx_autoresearch.errors import UserError", None) == []


def test_of_trusted_modules_only_named_functions_may_be_had() -> None:
    for code in ("import mlx_autoresearch.kernels.launch", "from mlx_autoresearch.kernels import launch"):
        assert scan(PATH, code.encode(), None), code


def test_nothing_that_a_recipe_is_given_leads_to_the_data() -> None:
    """A data source reads files, the validation text among them. The scan cannot know the type of an object."""
    told = Config().for_recipe()
    classes, seen = [type(told)], set()
    while classes:
        one = classes.pop()
        seen.add(one.__name__)
        hints = typing.get_type_hints(one) if one.__module__.startswith("mlx_autoresearch") else {}
        found = [kind for hint in hints.values() for kind in (hint, *typing.get_args(hint))]
        classes += [kind for kind in found if isinstance(kind, type) and kind.__name__ not in seen]
    assert {"RecipeConfig", "GPTConfig", "TrainConfig", "OptimizerConfig"} <= seen
    assert seen.isdisjoint({"Config", "DataConfig", "Stdlib", "Text", "Hub", "Gutenberg"})


def test_what_a_builtin_means_is_looked_up_in_every_function_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 250,000 bytes that asked for it at every use took many minutes, in the process that must go on."""
    walked: list[ast.AST] = []

    def walk(node: ast.AST) -> Iterator[ast.AST]:
        walked.append(node)
        return original(node)

    original = ast.walk
    monkeypatch.setattr(reader.ast, "walk", walk)
    arguments = ", ".join(f"a{i}" for i in range(50))
    found = scan(PATH, f"def f({arguments}):\n    {'open, ' * 50}\n".encode(), None)
    assert found and all("uses open" in problem or "more" in problem for problem in found)
    assert sum(isinstance(node, ast.arguments) for node in walked) == 1
