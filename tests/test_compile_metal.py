"""The sources of scripts/compile_metal.py are those that MLX makes: compared with what MLX prints, on any machine."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_autoresearch.kernels.description import KernelFile, Sizes
from mlx_autoresearch.kernels.launch import metal_text, mlx_dtype
from mlx_autoresearch.kernels.registry import find_kernel, kernel_folder, kernel_names

SCRIPT = runpy.run_path(str(Path(__file__).parents[1] / "scripts/compile_metal.py"))


def printed_by_mlx(file: KernelFile, sizes: Sizes, folder: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """MLX writes a kernel's source when it is called; without a GPU, when it is called in a graph to be exported."""
    kernel, resolved = file.kernel, file.resolve(sizes)
    call = file.launch(resolved)
    header, source = metal_text(kernel)
    built: Any = mx.fast.metal_kernel(
        kernel.name,
        kernel.input_names,
        kernel.output_names,
        source,
        header,
        atomic_outputs=kernel.atomic_outputs,
    )

    def launch(*arrays: mx.array) -> list[mx.array]:
        return built(
            inputs=list(arrays),
            template=[(name, mlx_dtype(value) if isinstance(value, str) else value) for name, value in call.template],
            grid=call.grid,
            threadgroup=call.threadgroup,
            output_shapes=call.output_shapes,
            output_dtypes=[mlx_dtype(dtype) for dtype in call.output_dtypes],
            verbose=True,
            stream=mx.gpu,
        )

    inputs = [
        mx.zeros(file.input_shape(name, resolved), mlx_dtype(file.input_dtype(name, resolved)))
        for name in kernel.input_names
    ]
    capfd.readouterr()
    mx.export_function(str(folder / "kernel.mlxfn"), launch, *inputs)
    return capfd.readouterr().out.partition("```\n")[2].rpartition("```")[0]


def without_name_and_blanks(source: str, kernel: str) -> str:
    """MLX adds dtypes to the function's name."""
    return re.sub(r"\s+", "", re.sub(rf"custom_kernel_{kernel}\w*", "name", source))


@pytest.mark.parametrize("name", kernel_names())
def test_what_is_compiled_is_what_mlx_would_compile(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = find_kernel(name)
    theirs = {
        without_name_and_blanks(printed_by_mlx(file, sizes, tmp_path, capfd), name) for sizes in file.description.cases
    }
    ours = [source.removeprefix(SCRIPT["PREAMBLE"]) for source in SCRIPT["sources"](file)]
    assert {without_name_and_blanks(source, name) for source in ours} == theirs
    assert len(ours) == len(theirs)


def test_the_preamble_is_in_mlx_wheel() -> None:
    (header,) = re.findall('"(.*)"', SCRIPT["PREAMBLE"])
    assert any((folder / header).is_file() for folder in SCRIPT["include_folders"]())


def test_errors_of_apples_compiler_name_our_files_and_lines(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In the text that MLX glues together a line directive stands on a line of its own, and the right lines follow."""
    file = find_kernel("softcapped_cross_entropy_forward")
    printed = printed_by_mlx(file, file.description.cases[0], tmp_path, capfd).split("\n")
    where, lines = ("", 0), {}
    for text in printed:
        if match := re.fullmatch(r'#line (\d+) "(.+)"', text):
            where = (match[2], int(match[1]) - 1)
        else:
            assert "#line" not in text
            where = (where[0], where[1] + 1)
            lines[where] = text
    for name in ("softcapped_cross_entropy_forward.metal", "softcapped_cross_entropy.h", "packs.h"):
        for number, text in enumerate((kernel_folder() / name).read_text().split("\n"), 1):
            if text and not text.startswith(("#include", "// kernel body")):
                assert lines[name, number] == text
    assert any(
        text.startswith("[[kernel]] void") for (name, _), text in lines.items() if name.startswith("signature of")
    )
