from __future__ import annotations

from pathlib import Path

import pytest

import mlx_autoresearch
from mlx_autoresearch.research.overlay import MODULES, SUBPACKAGE
from mlx_autoresearch.research.scan import scan

PACKAGE = Path(mlx_autoresearch.__file__).parent
PATH = "src/mlx_autoresearch/model.py"


@pytest.mark.parametrize("name", [f"{name}.py" for name in MODULES])
def test_the_projects_own_modules_pass(name: str) -> None:
    known = {"model.py": ["uses getattr with a computed name in getattr(mx, self.dtype_name)", "uses .load_weights"]}
    found = scan(f"src/mlx_autoresearch/{name}", (PACKAGE / name).read_bytes(), None)
    assert [problem.split(": ", 1)[1] for problem in found] == known.get(name, [])


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
        "from . import trainer",
        "from .evaluate import evaluate_bpb",
        "from .data import packing",
        "from ..mlx_autoresearch import run",
        "import mlx_autoresearch",
        "import mlx_autoresearch.trainer",
        "from mlx_autoresearch import trainer",
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
        "from . import errors\nerrors.__dict__['x'] = 1",
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


def test_kernels_may_use_the_simulator() -> None:
    path = f"src/mlx_autoresearch/{SUBPACKAGE}/registry.py"
    assert scan(path, b"from .description import load_kernel\nfrom mlx_autoresearch.simulator import run", None) == []
    assert scan(path, b"from ..trainer import train", None)
