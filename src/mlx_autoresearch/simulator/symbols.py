"""From an address in a compiled kernel to a line of its source."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from mlx_autoresearch.machine import system


def _atos(library: Path, addresses: list[int]) -> list[list[tuple[str, int]]]:
    """`_frames` by macOS's atos, which prints a line a frame and, for an address in no function, the address.

    So address 0 between the others tells where one's frames end.
    """
    symbols = Path(f"{library}.dSYM/Contents/Resources/DWARF/{library.name}")
    separated = [text for address in addresses for text in (hex(address), "0x0")]
    command = ["atos", "-i", "-o", str(symbols if symbols.exists() else library), "-l", "0x0", *separated]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    parts = re.split(r"^0x0+$", output, flags=re.M)[:-1]
    frames = [[(match[1], int(match[2])) for match in re.finditer(r"\(([^():/]+):(\d+)\)", part)] for part in parts]
    return frames if len(frames) == len(addresses) else [[] for _ in addresses]


def _frames(library: Path, addresses: list[int]) -> list[list[tuple[str, int]]]:
    """For each address the (file, line) of every inlined frame, innermost first; empty without a symbolizer."""
    if system.is_macos():
        return _atos(library, addresses)
    # First the one that knows the ranges of inlined code in DWARF 5, as addr2line before binutils 2.41 does not.
    for tool in ("llvm-symbolizer", *(f"llvm-symbolizer-{version}" for version in range(25, 16, -1)), "addr2line"):
        if shutil.which(tool):
            break
    else:
        return [[] for _ in addresses]
    hexadecimal = [hex(address) for address in addresses]
    if tool == "addr2line":
        command = [tool, "-a", "-i", "-e", str(library), *hexadecimal]
    else:
        command = [tool, "--output-style=GNU", "-a", "-i", "-s", "-p", "-e", str(library), *hexadecimal]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    frames: list[list[tuple[str, int]]] = []
    for line in output.split("\n"):
        if re.match(r"0x[0-9a-f]+", line):
            frames.append([])
        for place in re.finditer(r"([^\s:/]+):(\d+)", line):
            if frames:
                frames[-1].append((place[1], int(place[2])))
    return frames if len(frames) == len(addresses) else [[] for _ in addresses]


# What was found before: a symbolizer takes 10 ms.
_placed: dict[Path, dict[int, tuple[str, int]]] = {}
# Where the optimiser has joined the code of two lines, an instruction has none: those before it may.
_BACK = (1, 5, 10, 16, 24, 32, 48, 64)


def locate(library: Path, addresses: Iterable[int], files: set[str]) -> dict[int, tuple[str, int]]:
    """The innermost place in one of `files` for each address; it follows an instruction, as return addresses do.

    Addresses that cannot be placed are missing from the result.
    """
    wanted = sorted(set(addresses))
    names = {Path(file).name: file for file in files}
    places = _placed.setdefault(library, {})
    for back in _BACK:
        missing = [address for address in wanted if address not in places]
        if not missing:
            break
        for address, frames in zip(missing, _frames(library, [address - back for address in missing]), strict=True):
            place = next(((names[file], line) for file, line in frames if file in names and line), None)
            if place:
                places[address] = place
    return places
