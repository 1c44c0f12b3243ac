"""The signature is the one that MLX generates: compared with what MLX itself prints, on any machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_autoresearch.simulator import metal_kernel
from mlx_autoresearch.simulator.arrays import to_host
from mlx_autoresearch.simulator.signature import ATTRIBUTES, Input, make_signature

EVERY_ATTRIBUTE = "uint i = 0; " + " ".join(f"(void){name};" for name in ATTRIBUTES)
STRIDED = "y[0] = a[a_strides[0]] + T(a_shape[1]) + T(a_ndim) + b[b_shape[0]];"
CASES: dict[str, tuple[str, list[mx.array], list[Any], list[tuple[str, Any]], dict[str, Any]]] = {
    "number": ("y[0] = a + b[0];", [mx.array(1.0), mx.zeros((9,))], [mx.float32], [], {}),
    "small": ("y[0] = a[0] + b[0];", [mx.zeros((7,), mx.uint8), mx.zeros((8,), mx.int64)], [mx.int64], [], {}),
    "number_with_shape": (
        "y[0] = a + b[0]; /* a_shape a_ndim b_ndim */",
        [mx.array(2), mx.zeros(3)],
        [mx.int32],
        [],
        {},
    ),
    "strided": (
        STRIDED,
        [mx.zeros((4, 6)), mx.zeros((2, 5))],
        [mx.float32],
        [("T", mx.float32)],
        {"ensure_row_contiguous": False},
    ),
    "atomic": ("(void)a;", [mx.zeros((8,)), mx.zeros((8,))], [mx.float32, mx.int32], [], {"atomic_outputs": True}),
    "templated": (
        "y[0] = T(N) + T(FLAG);",
        [mx.zeros((8,), mx.bfloat16), mx.zeros((3, 3), mx.float16)],
        [mx.bfloat16],
        [("T", mx.bfloat16), ("N", 7), ("FLAG", True), ("M", -1), ("U", mx.uint32), ("OFF", False)],
        {},
    ),
    "attributes": (EVERY_ATTRIBUTE, [mx.zeros((8,)), mx.array(True)], [mx.bool_], [], {}),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_what_mlx_prints(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, inputs, dtypes, template, options = CASES[name]
    outputs = ["y", "z"][: len(dtypes)]
    compiled: Any = mx.fast.metal_kernel(
        name=name, input_names=["a", "b"], output_names=outputs, source=source, **options
    )

    def call(*arrays: mx.array) -> Any:
        return compiled(
            inputs=list(arrays),
            template=template,
            grid=(32, 1, 1),
            threadgroup=(32, 1, 1),
            output_shapes=[(4,)] * len(dtypes),
            output_dtypes=dtypes,
            verbose=True,
            stream=mx.gpu,  # type: ignore[arg-type]
        )

    mx.export_function(str(tmp_path / "kernel.mlxfn"), call, *inputs)
    printed = capfd.readouterr().out
    match = re.search(r"(?:template <(.*?)>\n)?\[\[kernel\]\] void \w+\(\n(.*?)\) \{\n", printed, re.S)
    assert match, printed
    theirs = [re.sub(r"\s*\[\[.*?\]\]", "", line).strip().rstrip(",") for line in match[2].split("\n")]
    arguments = re.search(r"decltype\(\w+<(.*?)>\)", printed)

    kernel = metal_kernel(name, ["a", "b"], outputs, source, **options)
    ours = make_signature(kernel, [Input.of(to_host(array, True)) for array in inputs], dtypes, template)
    assert ours.parameters == theirs
    assert ours.template_parameters == (match[1] or "")
    assert ours.template_arguments == (arguments[1] if arguments else "")
