"""Reads a kernel's files: the .metal with what it includes, the .yaml beside it, the float64 definition in a .py."""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from mlx_autoresearch.config.yaml_text import parse_yaml, read_text
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.plain_text import one_line
from mlx_autoresearch.simulator import Kernel

from .description import Description, KernelFile

_BODY = re.compile(r"^// kernel body\b.*$", re.M)
_ARCHITECTURE = re.compile(r"sm_\d{2,3}")
_DEFINITION = re.compile(r"[\w-][\w.-]*\.py")
_INCLUDE = re.compile(r'^#include "(?P<name>\w[\w.]*)"$', re.M)


def _text(path: Path) -> str:
    return read_text(path, "a kernel's file", "a kernel is a .metal file with a .yaml beside it")


def split_source(text: str) -> tuple[str, str, int]:
    """Header, body and the line on which the body begins: after the line `// kernel body`, if there is one."""
    match = _BODY.search(text)
    if not match:
        return "", text, 1
    return text[: match.start()], text[match.end() + 1 :], text.count("\n", 0, match.end()) + 2


def include(header: str, kernel: Path) -> str:
    """The header with every `#include "name"` replaced by the file of that name beside the kernel.

    Raises UserError if there is no such file.
    """

    def splice(match: re.Match[str]) -> str:
        path = kernel.parent / match["name"]
        if not path.is_file():
            raise UserError(f"{kernel}: #include: {path} does not exist")
        next_line = header.count("\n", 0, match.end()) + 2
        text = _text(path).removesuffix("\n")
        return f'#line 1 "{path.name}"\n{text}\n#line {next_line} "{kernel.name}"'

    return _INCLUDE.sub(splice, header)


def _load_definition(path: Path, name: str) -> Callable[..., dict[str, np.ndarray]]:
    """The function `name` of a .py file, which is compiled here each time: byte code beside it is never read."""
    module = types.ModuleType(f"kernel_definition_{path.stem}")
    module.__file__ = str(path)
    source = _text(path)
    try:
        exec(compile(source, path, "exec", dont_inherit=True), vars(module))
    except (Exception, SystemExit) as error:  # it is somebody's code
        raise UserError(f"{path}: {type(error).__name__}: {one_line(str(error), 200)}") from None
    if not callable(getattr(module, name, None)):
        raise UserError(f"{path}: expected a function {name!r}")
    return getattr(module, name)


def _load_source(path: Path, name: str, description: Description) -> Kernel:
    header, body, line = split_source(_text(path))
    return Kernel(
        name,
        list(description.inputs),
        list(description.outputs),
        body,
        include(header, path),
        atomic_outputs=description.atomic_outputs,
        file=path.name,
        source_line=line,
    )


def load_kernel(path: Path) -> KernelFile:
    """Reads a .metal file, the .yaml beside it, CUDA's own sources that the YAML names, and the definition.

    Raises UserError if a file is missing or malformed.
    """
    metal, description_path = path.with_suffix(".metal"), path.with_suffix(".yaml")
    for needed in (metal, description_path):
        if not needed.is_file():
            raise UserError(f"kernels: {needed} does not exist (a kernel is a .metal file with a .yaml beside it)")
    try:
        description = Description.model_validate(parse_yaml(_text(description_path)))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{description_path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except ValueError as error:
        raise UserError(f"{description_path}: {error}") from None
    for name, given in description.inputs.items():
        if (given.shape is None) == (given.value is None):
            raise UserError(f"{description_path}: inputs.{name}: give either shape or value")
    launches = {"": description} | {f"cuda.{name}.": native for name, native in description.cuda.items()}
    for prefix, launch in launches.items():
        for what, sizes in (("grid", launch.grid), ("threadgroup", launch.threadgroup)):
            if len(sizes) != 3:
                raise UserError(f"{description_path}: {prefix}{what}: three sizes are needed, got {len(sizes)}")
    kernel = _load_source(metal, metal.stem, description)
    natives = {}
    for architecture in description.cuda:
        if not _ARCHITECTURE.fullmatch(architecture):
            raise UserError(f"{description_path}: cuda: {architecture!r:.60} is no architecture such as sm_90")
        source = metal.with_suffix(f".{architecture}.cu")
        if not source.is_file():
            raise UserError(f"{description_path}: cuda: {source} does not exist")
        natives[architecture] = _load_source(source, f"{metal.stem}_{architecture}", description)
    file, _, function = (description.definition or f"{metal.stem}.py:definition").partition(":")
    definition_path = metal.parent / file
    definition = None
    if not _DEFINITION.fullmatch(file):
        raise UserError(f"{description_path}: definition: {file!r:.100} is no .py file in the kernel's folder")
    if definition_path.is_file():
        definition = _load_definition(definition_path, function or "definition")
    elif description.definition:
        raise UserError(f"{description_path}: definition: {definition_path} does not exist")
    return KernelFile(kernel, description, definition, natives)
