"""Reads changed code before it is run: a first line of defence, cheap, and no proof.

What it cannot see the processes' confinement and the evaluator must hold: Python offers endless ways round a reader.
Only what a change adds counts; what the file did before is allowed.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

from .overlay import MODULES, PACKAGE, SUBPACKAGE

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
_OWN = {*MODULES, "autodiff", "device", "errors", "gpt_config"}
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
    "open_memmap",
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
    in_kernels = f"{PACKAGE}/{SUBPACKAGE}/" in path or path.startswith("custom_kernels/")
    modules: set[str] = set()  # names that modules are bound to
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            for alias in node.names:
                if not _allowed(alias.name, in_kernels):
                    yield node.lineno, f"imports {alias.name}"
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                base = [PACKAGE, SUBPACKAGE] if in_kernels else [PACKAGE]
                source = ".".join([*base[: len(base) - node.level + 1], *([source] if source else [])])
            for alias in node.names:
                if source in ("mlx", "numpy", PACKAGE) or source == f"{PACKAGE}.{SUBPACKAGE}":
                    modules.add(alias.asname or alias.name)
                whole = f"{source}.{alias.name}"
                if not (_allowed(source, in_kernels) and source != PACKAGE) and not _allowed(whole, in_kernels):
                    yield node.lineno, f"imports {alias.name} from {source}"
                if alias.name in _ATTRIBUTES or alias.name == "*":
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


def _allowed(module: str, in_kernels: bool) -> bool:
    if module.startswith(f"{PACKAGE}."):
        own = module.split(".")[1]
        return own in _OWN or own == SUBPACKAGE or (in_kernels and own == "simulator")
    return module in _IMPORTS


def _root(node: ast.AST) -> str | None:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None
