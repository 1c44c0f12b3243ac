"""How many threads a threadgroup has on this GPU. Metal takes fewer where each of them needs many registers.

MLX finds out when a kernel is evaluated, long after its call. So a kernel whose description leaves the number open is
launched once beforehand, with inputs as small as they may be, and given fewer threads until it runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from mlx_autoresearch.errors import raise_interruption

from .description import KernelFile, Sizes

_TOO_MANY = re.compile(r"Thread group size \((?P<needed>\d+)\) is greater than\D*\((?P<most>\d+)\)")
_SIMDGROUP = 32


def too_many_threads(text: str) -> str | None:
    """One line for MLX's error of a threadgroup with more threads than the GPU takes; None for another error."""
    match = _TOO_MANY.search(text)
    if not match:
        return None
    return (
        f"a threadgroup has {match['needed']} threads, and this GPU takes {match['most']} that need so many registers; "
        "kernels: mlx avoids it"
    )


def open_size(file: KernelFile) -> str | None:
    """The size that says how many threads a threadgroup has, where the kernel takes other values than the derived."""
    first, *others = file.description.threadgroup
    return first if isinstance(first, str) and first in file.description.derived and others == [1, 1] else None


def threads_that_fit(file: KernelFile, sizes: Sizes, run: Callable[[Sizes], None]) -> int:
    """How many threads the kernel may have on this GPU: as many as it would, or fewer.

    run: launches the kernel at resolved sizes and evaluates it. Of its errors only that of too many threads counts
    here; any other will come again when the kernel is used.
    """
    name = open_size(file)
    assert name
    threads = file.resolve(sizes)[name]
    while threads > _SIMDGROUP:
        try:
            run(file.resolve({**sizes, name: threads}))
        except (RuntimeError, ValueError) as error:
            raise_interruption(error)
            match = _TOO_MANY.search(str(error))
            if not match:
                break
            threads = max(_SIMDGROUP, min(int(match["most"]), threads - 1) // _SIMDGROUP * _SIMDGROUP)
        else:
            break
    return threads


def smallest(file: KernelFile, sizes: Mapping[str, Any]) -> Sizes:
    """The sizes with 1 for each that template and threads do not depend on, such as the number of rows."""
    wanted = file.launch(file.resolve(sizes))
    small = dict(sizes)
    for name, value in sizes.items():
        if isinstance(value, int) and not isinstance(value, bool) and value > 1:
            launch = file.launch(file.resolve({**small, name: 1}))
            if (launch.template, launch.threadgroup) == (wanted.template, wanted.threadgroup):
                small[name] = 1
    return small
