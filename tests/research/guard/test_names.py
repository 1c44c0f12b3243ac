"""The table of allowed names beside what is installed: nothing listed is a module, reads a file or runs text."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator

import pytest

from mlx_autoresearch.research.guard.names import BOUND, MODULES, REFUSED_ATTRIBUTES, REFUSED_BUILTINS


def module(name: str) -> types.ModuleType:
    found = importlib.import_module(".".join(name.split(".")[:2]))
    for part in name.split(".")[2:]:
        found = getattr(found, part)
    return found


def listed() -> Iterator[tuple[str, str, object]]:
    for name, allowed in MODULES.items():
        held = module(name)
        yield from ((name, inner, getattr(held, inner)) for inner in sorted(allowed) if hasattr(held, inner))


def test_every_listed_name_exists_here() -> None:
    """Names that a version of Python or NumPy dropped would be refused by Python itself: few may be missing."""
    missing = {f"{name}.{inner}" for name, allowed in MODULES.items() for inner in allowed} - {
        f"{name}.{inner}" for name, inner, _ in listed()
    }
    assert not {name for name in missing if name.startswith("mlx")}
    assert len(missing) <= 5, missing


def test_nothing_listed_is_a_module_or_refused_as_an_attribute() -> None:
    for name, inner, value in listed():
        assert not isinstance(value, types.ModuleType) and not inner.startswith("_"), (name, inner)
        assert f"{name}.{inner}" not in MODULES
        assert inner not in REFUSED_ATTRIBUTES


def test_nothing_listed_has_a_module_for_an_attribute() -> None:
    """As enum had Python's builtins. Names with two underscores are refused anyway."""
    found = set()
    for name, inner, value in listed():
        for attribute in dir(value):
            if attribute.startswith("__") or attribute in REFUSED_ATTRIBUTES or attribute in BOUND:
                continue
            try:
                held = getattr(value, attribute)
            except Exception:
                continue
            if isinstance(held, types.ModuleType) or held is sys.modules:
                found.add(f"{name}.{inner}.{attribute}")
    assert found == set()


def test_what_opens_files_or_runs_text_is_not_listed() -> None:
    for name, refused in {
        "numpy": "DataSource bmat c_ ctypeslib f2py fromfile fromregex genfromtxt lib load loadtxt memmap r_ save "
        "savetxt savez savez_compressed seterrcall show_config test testing",
        "mlx.core": "as_strided disable_compile distributed export_function export_to_dot exporter import_function "
        "load save save_gguf save_safetensors savez savez_compressed set_default_device set_memory_limit",
        "mlx.core.fast": "precompiled_cuda_kernel",
        "mlx.core.metal": "start_capture",
        "contextlib": "chdir redirect_stderr redirect_stdout",
        "dataclasses": "Field builtins fields inspect make_dataclass sys",
        "enum": "EnumType bltns global_enum global_flag_repr sys",
        "functools": "singledispatch singledispatchmethod update_wrapper",
        "operator": "attrgetter call methodcaller",
        "typing": "ForwardRef get_args get_overloads get_type_hints sys",
    }.items():
        assert MODULES[name].isdisjoint(refused.split())


@pytest.mark.parametrize(
    "name", ["__builtins__", "open", "exec", "eval", "compile", "globals", "vars", "license", "quit"]
)
def test_builtins_that_reach_out_are_refused(name: str) -> None:
    assert name in REFUSED_BUILTINS or name.startswith("__")


def test_modules_are_bound_to_one_name_each() -> None:
    assert len(set(BOUND.values())) == len(BOUND)
    assert set(BOUND.values()) <= set(MODULES)
