from __future__ import annotations

import pytest

from mlx_autoresearch import errors
from mlx_autoresearch.errors import GPUInterrupted, OutOfMemory, ReportedError, RunFailed, UserError, from_mlx
from tests.support.mac import errors as mac


def test_every_exception_is_in_the_picture_with_its_exit_code() -> None:
    classes = [ReportedError, *ReportedError.__subclasses__(), *UserError.__subclasses__(), *RunFailed.__subclasses__()]
    assert {c.__name__ for c in classes} == {n for n, c in vars(errors).items() if isinstance(c, type)}
    assert all(f" {c.__name__}" in str(errors.__doc__) for c in classes)
    assert {c.exit_code for c in classes if issubclass(c, UserError)} == {2}
    assert {c.exit_code for c in classes if issubclass(c, RunFailed)} == {1}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), OutOfMemory),
        (RuntimeError("[malloc] Unable to allocate 4 bytes."), OutOfMemory),
        (RuntimeError("CUDA out of memory"), OutOfMemory),
        (RuntimeError(mac.MEMORY), OutOfMemory),
        (RuntimeError(mac.INTERACTIVITY), GPUInterrupted),
        (RuntimeError(mac.TIMEOUT), GPUInterrupted),
        (RuntimeError(mac.HANG), GPUInterrupted),
        (RuntimeError(mac.VICTIM), GPUInterrupted),
        (RuntimeError(mac.IGNORED), GPUInterrupted),
        (RuntimeError(mac.PAGE_FAULT), type(None)),  # an access out of bounds: a kernel's fault
        (RuntimeError("Could not load C++ shared library x.so: file too short"), UserError),
        (RuntimeError("filesystem error: cannot create directories"), UserError),
        (RuntimeError("[matmul] shapes do not match"), type(None)),
    ],
    ids=repr,
)
def test_what_mlx_raises_is_told_apart(error: RuntimeError, kind: type) -> None:
    assert type(from_mlx(error)) is kind
