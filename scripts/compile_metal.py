"""Compiles every kernel of custom_kernels/ with Apple's compiler, for each version of Metal's language from 3.1 on.

    python scripts/compile_metal.py [VERSION ...]

Needs `xcrun metal`: Xcode, and since Xcode 26 its Metal toolchain. VERSION, as metal3.2: one that it must know.

The source is the one that MLX makes of a kernel: its preamble, from the headers that its wheel brings, the kernel's own
header, a signature, the body, and an instance of its template. The warning metal-addr-spaces, where the compiler knows
it, counts as an error. Nothing is run, so no GPU is needed.

Exit code 1: a kernel does not compile; a line each says why. Exit code 2: there is no compiler, it knows no version or
not one that it must know.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels.description import KernelFile
from mlx_autoresearch.kernels.launch import metal_text
from mlx_autoresearch.kernels.registry import find_kernel, kernel_names
from mlx_autoresearch.simulator.signature import ATTRIBUTES, SMALL, Input, Signature, make_signature

VERSIONS = ("metal3.1", "metal3.2", "metal4.0", "metal4.1")
# Tells of members that are handed on from a member function whose `this` may point anywhere, as Metal 4.1 has it.
WARNING = "metal-addr-spaces"
COMPILER = ["xcrun", "-sdk", "macosx", "metal"]
PREAMBLE = '#include "mlx/backend/metal/kernels/utils.h"\n'


def include_folders() -> list[Path]:
    """Where MLX's wheel keeps the headers of its own kernels."""
    spec = find_spec("mlx")
    return [Path(folder, "include") for folder in (spec and spec.submodule_search_locations) or []]


def compile_source(source: str, version: str, *more: str) -> str | None:
    """What Apple's compiler says first against a source; None where it compiles. Raises UserError without `xcrun`.

    more: further options.
    """
    if shutil.which("xcrun") is None:
        raise UserError("xcrun is missing: this needs a Mac with Xcode")
    # MLX compiles kernels in Metal's safe mode of arithmetic.
    options = [f"-std={version}", "-fno-fast-math", *more, *(f"-I{folder}" for folder in include_folders())]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.metal")
        path.write_text(source, encoding="utf-8")
        command = [*COMPILER, *options, "-c", str(path), "-o", f"{path}.air"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return next((line for line in lines if re.search(r"\berror\b", line)), lines[0])[:300]


def sources(file: KernelFile) -> Iterator[str]:
    """The kernel as MLX would compile it, for each signature among the description's cases."""
    given = set()
    for case in file.description.cases:
        call = file.call(file.resolve(case), 0)
        inputs = [Input(dtype, array.ndim, array.size < SMALL) for dtype, array in call.inputs.values()]
        signature = make_signature(file.kernel, inputs, call.output_dtypes, call.template)
        source = metal_source(file, signature)
        if source not in given:
            given.add(source)
            yield source


def metal_source(file: KernelFile, signature: Signature) -> str:
    """One function, with the attributes that the simulator's signature leaves out, and its instance."""
    name = f"custom_kernel_{file.name}"
    parameters = []
    for parameter in signature.parameters:
        last = parameter.split()[-1]
        place = last if last in ATTRIBUTES else f"buffer({len(parameters)})"
        parameters.append(f"{parameter} [[{place}]]")
    template = f"template <{signature.template_parameters}>\n" if signature.template_parameters else ""
    header, source = metal_text(file.kernel)
    function = f"{template}[[kernel]] void {name}({', '.join(parameters)}) {{\n{source}\n}}\n"
    if template:
        instance = f"{name}<{signature.template_arguments}>"
        function += f'template [[host_name("{name}")]] [[kernel]] decltype({instance}) {instance};\n'
    return f"{PREAMBLE}{header}{function}"


def main() -> int:
    try:
        if unknown := set(sys.argv[1:]) - set(VERSIONS):
            raise UserError(f"{', '.join(sorted(unknown))}: the versions are {', '.join(VERSIONS)}")
        known = {version: compile_source("", version) for version in VERSIONS}
        if all(known.values()):
            raise UserError(f"`{' '.join(COMPILER)}` compiles for none of {', '.join(VERSIONS)}: {known[VERSIONS[0]]}")
        for version in sys.argv[1:]:
            if known[version]:
                raise UserError(f"{version} is not known to this compiler: {known[version]}")
        return compile_all(known)
    except UserError as error:
        print(f"compile_metal: {error}", file=sys.stderr)
        return 2


def compile_all(known: dict[str, str | None]) -> int:
    """Every kernel for every known version. known: what the compiler says against an empty source for each."""
    failed = 0
    for version, refusal in known.items():
        if refusal:
            print(f"{version}: not known to this compiler: {refusal}")
            continue
        refused = compile_source("", version, "-Werror=unknown-warning-option", f"-W{WARNING}")
        more = [] if refused else [f"-Werror={WARNING}"]
        count = 0
        for name in kernel_names():
            for source in sources(find_kernel(name)):
                count += 1
                if said := compile_source(source, version, *more):
                    failed += 1
                    print(f"{version}: {name} does not compile: {said}")
                    break
        print(f"{version}: {len(kernel_names())} kernels, {count} sources {' '.join(more)}".rstrip(), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
