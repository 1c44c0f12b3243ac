"""Reads changed code before it is run: a first line of defence, cheap, and no proof.

What it cannot see the processes' confinement and the evaluator must hold: Python offers endless ways round a reader.
Only what a change adds counts; what the file did before is allowed.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

from mlx_autoresearch.trials.overlay import PACKAGE, RECIPE

_IMPORTS = {
    "__future__",
    "abc",
    "collections",
    "collections.abc",
    "contextlib",
    "dataclasses",
    "enum",
    "functools",
    "itertools",
    "math",
    "operator",
    "typing",
    "mlx",
    "mlx.core",
    "mlx.core.fast",
    "mlx.core.linalg",
    "mlx.core.random",
    "mlx.nn",
    "mlx.nn.layers",
    "mlx.optimizers",
    "mlx.utils",
    "numpy",
}
_TRUSTED = {  # what a recipe may take from code that it cannot change
    "config.gpt": {"GPTConfig", "WindowPattern"},
    "config.recipe_section": {"read_settings"},
    "config.settings": {"OptimizerConfig", "RecipeConfig", "TrainConfig"},
    "errors": {"RunFailed", "UserError"},
    "kernels.launch": {"launch"},
    "kernels.operation": {
        "Implementation",
        "Language",
        "Operation",
        "UnfitKernel",
        "measuring",
        "random_like",
        "resolved",
    },
    "machine.device": {"cpu_compiler_available", "default_compute_dtype", "is_gpu", "kernel_backend"},
    "simulator.arrays": {"dtype_name"},
    "simulator.signature": {"SMALL"},
}
_NAMES = {
    "__builtins__",
    "__import__",
    "__loader__",
    "__spec__",
    "breakpoint",
    "builtins",
    "compile",
    "delattr",
    "eval",
    "exec",
    "globals",
    "input",
    "locals",
    "memoryview",
    "open",
    "os",
    "setattr",
    "subprocess",
    "sys",
    "vars",
}
_ATTRIBUTES = {
    # the interpreter's insides
    "f_back",
    "f_builtins",
    "f_globals",
    "f_locals",
    "gi_frame",
    "tb_frame",
    # attributes by a computed name, and text that is evaluated
    "ForwardRef",
    "attrgetter",
    "get_type_hints",
    "methodcaller",
    # the process
    "os",
    "sys",
    "subprocess",
    "builtins",
    "ctypes",
    "ctypeslib",
    "importlib",
    # files
    "DataSource",
    "dump",
    "export_function",
    "export_to_dot",
    "exporter",
    "fromfile",
    "genfromtxt",
    "import_function",
    "load",
    "load_weights",
    "loadtxt",
    "lib",
    "memmap",
    "open",
    "open_memmap",
    "parse_file",
    "parse_raw",
    "save",
    "save_gguf",
    "save_safetensors",
    "save_weights",
    "savetxt",
    "savez",
    "savez_compressed",
    "start_capture",
    "tofile",
    "f2py",
    "testing",
}
_DUNDERS = {
    "__annotations__",
    "__call__",
    "__contains__",
    "__doc__",
    "__eq__",
    "__enter__",
    "__exit__",
    "__getitem__",
    "__hash__",
    "__init__",
    "__iter__",
    "__len__",
    "__name__",
    "__next__",
    "__post_init__",
    "__repr__",
    "__setitem__",
    "__all__",
    "__version__",
    "__file__",
}


def scan(path: str, new: bytes, old: bytes | None) -> list[str]:
    """What is not allowed in `new`, the content of a .py file, and was not in `old`; one line each."""
    try:
        tree = ast.parse(new)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        return [f"{path}{f':{line}' if line else ''}: syntax error: {getattr(error, 'msg', error)}"]
    before: Counter[str] = Counter()
    if old is not None:
        before.update(problem for _, problem in _problems(ast.parse(old), path))
    found = []
    for line, problem in _problems(tree, path):
        if before[problem]:
            before[problem] -= 1
        else:
            found.append(f"{path}:{line}: {problem}")
    return found


def _problems(tree: ast.AST, path: str) -> Iterator[tuple[int, str]]:
    modules: set[str] = set()  # names that modules are bound to
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            for alias in node.names:
                # Without "as" it binds the package, and with it every room.
                whole = alias.name.startswith(f"{PACKAGE}.") and alias.asname is None
                if whole or not _is_module(alias.name):
                    yield node.lineno, f"imports {PACKAGE if whole else alias.name}"
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(node, path)
            for alias in node.names:
                if _is_module(f"{source}.{alias.name}") or source in ("mlx", "numpy", PACKAGE):
                    modules.add(alias.asname or alias.name)
                if not _may_import(source, alias.name) or alias.name in _ATTRIBUTES or alias.name == "*":
                    yield node.lineno, f"imports {alias.name} from {source}"
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and (node.id in _NAMES or (node.id == "getattr" and id(node) not in called)):
            yield node.lineno, f"uses {node.id}"
        elif isinstance(node, ast.MatchClass):
            yield from ((node.lineno, f"uses .{name}") for name in node.kwd_attrs if _reaches_out(name))
        elif isinstance(node, ast.Attribute):
            if _reaches_out(node.attr):
                yield node.lineno, f"uses .{node.attr}"
            if isinstance(node.ctx, ast.Store | ast.Del) and _root(node) in modules:
                yield node.lineno, f"changes the module {_root(node)}"
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del) and _root(node) in modules:
            yield node.lineno, f"changes the module {_root(node)}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            if len(node.args) < 2 or not isinstance(node.args[1], ast.Constant):
                yield node.lineno, f"uses getattr with a computed name in {ast.unparse(node)}"
            elif _reaches_out(str(node.args[1].value)):
                yield node.lineno, f"uses .{node.args[1].value}"


def _reaches_out(attribute: str) -> bool:
    dunder = attribute.startswith("__") and attribute.endswith("__")
    return attribute in _ATTRIBUTES or (dunder and attribute not in _DUNDERS)


def _absolute(node: ast.ImportFrom, path: str) -> str:
    """The module that names are imported from; a relative one that leads out of the package stays relative."""
    module = node.module or ""
    if not node.level:
        return module
    package = path.removeprefix("src/").split("/")[:-1]  # of an __init__.py it is the same folder
    if node.level > len(package) or package[0] != PACKAGE:
        return "." * node.level + module
    return ".".join([*package[: len(package) - node.level + 1], *([module] if module else [])])


def _is_module(name: str) -> bool:
    """Whether a recipe may have the module itself, and with it all of its names."""
    return name in _IMPORTS or f"{name}.".startswith(f"{PACKAGE}.{RECIPE}.")


def _may_import(source: str, name: str) -> bool:
    trusted = _TRUSTED.get(source.removeprefix(f"{PACKAGE}."), set()) if source.startswith(f"{PACKAGE}.") else set()
    return name in trusted or _is_module(source) or _is_module(f"{source}.{name}")


def _root(node: ast.AST) -> str | None:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None
