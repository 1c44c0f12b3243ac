from __future__ import annotations

import typing
from pathlib import Path

import pytest

import mlx_autoresearch
from mlx_autoresearch.config.settings import Config
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
    "code",
    [
        "import os",
        "import sys as mx",
        "from os import path",
        "import importlib",
        "from importlib import util",
        "import time",
        "import ctypes",
        "from .. import training",
        "from ..metric.bits import evaluate_bpb",
        "from ..data import packing",
        "from ...mlx_autoresearch import run",
        "import mlx_autoresearch",
        "import mlx_autoresearch.training.trainer",
        "import mlx_autoresearch.recipe.loss",
        "import mlx_autoresearch.recipe.loss\nmlx_autoresearch.machine.git.run(['sh'], {})",
        "import mlx_autoresearch.recipe",
        "from mlx_autoresearch.config.settings import Config",
        "from mlx_autoresearch.config.settings import DataConfig",
        "def make_model(config, dtype):\n    return list(config.data.source.open(None).documents('val'))",
        "from mlx_autoresearch.training import trainer",
        "from numpy import *",
        "from numpy import load",
        "open('x')",
        "eval('1')",
        "exec('1')",
        "__import__('os')",
        "__builtins__['open']",
        "globals()['x'] = 1",
        "getattr(1, 'x' + 'y')",
        "getattr(object, '__subclasses__')",
        "().__class__.__base__.__subclasses__()",
        "(lambda: 0).__globals__",
        "f.__code__ = g.__code__",
        "import numpy as np\nnp.memmap('x')",
        "import numpy as np\nnp.zeros(1).tofile('x')",
        "import mlx.core as mx\nmx.load('x')",
        "import mlx.core as mx\nmx.fast.rms_norm = None",
        "import mlx.core as mx\ndel mx.fast",
        "import math\nmath.exp += 1",
        "from . import fastmath\nfastmath.exp = None",
        "from .. import errors\nerrors.__dict__['x'] = 1",
        "setattr(int, 'x', 1)",
        "get = getattr\nget(f, 'x')",
        "from functools import reduce\nreduce(getattr, ['x'], f)",
        "import operator\noperator.attrgetter('__globals__')(f)",
        "from operator import methodcaller",
        "match f:\n    case object(__globals__=found): pass",
        "import numpy as np\nnp.__dict__['load']('x')",
        "import typing\ntyping.get_type_hints(f)",
        "from typing import ForwardRef",
        "import numpy as np\nnp.zeros(1).dump('x')",
        "def f(:",
        "\x00",
    ],
)
def test_what_reaches_out_is_found(code: str) -> None:
    assert scan(PATH, code.encode(), None)


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
