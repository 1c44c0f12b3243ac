"""From a Metal kernel to what `mx.fast.cuda_kernel` takes.

The kernel's text hardly changes. Address spaces vanish, threadgroup arrays become `__shared__`, the thread attributes
that Metal passes as arguments are declared at the top of the body; everything else is a matter of the headers in shim/.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.simulator.build import SHIM
from mlx_autoresearch.simulator.kernel import Kernel
from mlx_autoresearch.simulator.signature import ATTRIBUTES
from mlx_autoresearch.simulator.translation import (
    as_cpp,
    blank_comments,
    check_dialect,
    place,
)

_HEADERS = ("types.cuh", "math.cuh", "simdgroup.cuh", "matrix.cuh")

_INDEX = "((threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x)"
_THREADS = "(blockDim.x * blockDim.y * blockDim.z)"
_VALUES = {
    "dispatch_quadgroups_per_threadgroup": f"(({_THREADS} + 3) / 4)",
    "dispatch_simdgroups_per_threadgroup": f"(({_THREADS} + 31) / 32)",
    "dispatch_threads_per_threadgroup": "uint3(blockDim.x, blockDim.y, blockDim.z)",
    "grid_origin": "uint3(0u)",
    "grid_size": "uint3(gridDim.x * blockDim.x, gridDim.y * blockDim.y, gridDim.z * blockDim.z)",
    "quadgroup_index_in_threadgroup": f"({_INDEX} / 4)",
    "quadgroups_per_threadgroup": f"(({_THREADS} + 3) / 4)",
    "simdgroup_index_in_threadgroup": f"({_INDEX} / 32)",
    "simdgroups_per_threadgroup": f"(({_THREADS} + 31) / 32)",
    "thread_execution_width": "32u",
    "thread_index_in_quadgroup": f"({_INDEX} % 4)",
    "thread_index_in_simdgroup": f"({_INDEX} % 32)",
    "thread_index_in_threadgroup": _INDEX,
    "thread_position_in_grid": "uint3(blockIdx.x * blockDim.x + threadIdx.x, blockIdx.y * blockDim.y + threadIdx.y, "
    "blockIdx.z * blockDim.z + threadIdx.z)",
    "thread_position_in_threadgroup": "uint3(threadIdx.x, threadIdx.y, threadIdx.z)",
    "threadgroup_position_in_grid": "uint3(blockIdx.x, blockIdx.y, blockIdx.z)",
    "threadgroups_per_grid": "uint3(gridDim.x, gridDim.y, gridDim.z)",
    "threads_per_grid": "uint3(gridDim.x * blockDim.x, gridDim.y * blockDim.y, gridDim.z * blockDim.z)",
    "threads_per_simdgroup": "32u",
    "threads_per_threadgroup": "uint3(blockDim.x, blockDim.y, blockDim.z)",
}

# A string, which stays, or an address space, which goes.
_ADDRESS_SPACE = re.compile(r'(?P<string>"(?:\\.|[^"\\\n])*")|\b(?:device|constant|threadgroup|thread)\b[ \t]?')
# `constant float table[2] = {...};` outside the kernel, but not `constant float* p`.
_CONSTANT_TABLE = re.compile(r"\bconstant\b(?=[^;,(){}*&=]*=)")
_INCLUDE = re.compile(r'^#include "(?P<name>[\w.]+)"$', re.M)
_METAL_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*<metal_\w+>[ \t]*$", re.M)
_UNSUPPORTED = {
    r"\batomic(?:_\w+)?\b": "atomics",
    r"\b(?:texture|depth)(?:1d|2d|3d|cube)\w*\b": "textures",
    r"\bsimdgroup_async_copy\b": "async copies",
    r"\bimageblock\w*\b": "imageblocks",
    r"\bdouble\b": "double",
}


@cache
def _shim() -> str:
    """The headers as one text: what they include, the simulator's lists and functions, stands in its place."""
    return "".join(_spliced(Path(__file__).parent / "shim" / name) for name in _HEADERS)


def _spliced(path: Path) -> str:
    text = path.read_text(encoding="utf-8")

    def included(match: re.Match[str]) -> str:
        next_line = text.count("\n", 0, match.end()) + 2
        return f'{_spliced(SHIM / match["name"])}#line {next_line} "{path.name}"'

    return f'#line 1 "{path.name}"\n{_INCLUDE.sub(included, text)}'


def _check(kernel: Kernel, header: str, body: str) -> None:
    findings = check_dialect(kernel, knows_columns=True)
    if findings:
        raise UserError(f"kernels: cannot translate to CUDA: {findings[0]}")
    if kernel.atomic_outputs:
        raise UserError(f"kernels: cannot translate {kernel.name} to CUDA: atomics cannot be translated")
    parts = ((header, kernel.header_file, kernel.header_line), (body, kernel.source_file, kernel.source_line))
    for text, file, first in parts:
        for pattern, what in _UNSUPPORTED.items():
            if match := re.search(pattern, text):
                where, line = place(text, match.start(), file, first)
                raise UserError(f"kernels: cannot translate to CUDA: {where}:{line}: {what} cannot be translated")


def _without_address_spaces(text: str) -> str:
    return _ADDRESS_SPACE.sub(lambda match: match["string"] or "", text)


def _shared(number: int, ctype: str, alignment: str, name: str) -> str:
    base, bracket, extents = ctype.partition("[")
    given = f" alignas({alignment})" if alignment else ""
    return f"__shared__ alignas(16){given} {base} {name}{bracket}{extents};"  # vectors may be loaded from it


def translate(kernel: Kernel) -> tuple[str, str]:
    """The `source` and `header` for `mx.fast.cuda_kernel`, whose other arguments stay those of `mx.fast.metal_kernel`.

    Errors of CUDA's compiler name the kernel's own file and lines. Raises UserError, with file and line, for what has
    no translation: atomics, textures, threadgroup memory declared in an unusual way or outside the kernel's body.
    """
    _check(kernel, *(blank_comments(text) for text in (kernel.header, kernel.source)))
    lists, header, body = as_cpp(kernel, _shared)
    attributes = "".join(
        f"const {ctype} {name} = {_VALUES[name]};\n"
        for name, ctype in ATTRIBUTES.items()
        if re.search(rf"\b{name}\b", body)
    )
    body = _without_address_spaces(body)
    header = _METAL_INCLUDE.sub("", header)
    header = _without_address_spaces(_CONSTANT_TABLE.sub("__constant__", header))
    return (
        f'{attributes}#line {kernel.source_line} "{kernel.source_file}"\n{body}',
        f"{lists}{_shim()}namespace mlx::core::cu {{\n"
        f'#line {kernel.header_line} "{kernel.header_file}"\n{header}\n'
        "}  // namespace mlx::core::cu\n",
    )


def as_it_is(kernel: Kernel) -> tuple[str, str]:
    """The `source` and `header` for `mx.fast.cuda_kernel` of a kernel that is written in CUDA."""
    return (
        f'#line {kernel.source_line} "{kernel.source_file}"\n{kernel.source}',
        "namespace mlx::core::cu {\n"
        f'#line {kernel.header_line} "{kernel.header_file}"\n{kernel.header}\n'
        "}  // namespace mlx::core::cu\n",
    )
