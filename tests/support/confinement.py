"""Whether this machine, or the simulated Mac, confines commands; and a confinement such as a trial gets."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from mlx_autoresearch.sandbox import confinement
from mlx_autoresearch.sandbox.confinement import Confinement
from mlx_autoresearch.sandbox.readable import devices, private_places, python_files, system_files

HERE = confinement.here()
confined = pytest.mark.skipif(HERE.startswith("none"), reason=HERE)


def confined_to(
    *writable: Path, network: bool = False, readable: Iterable[Path] = (), closed: Iterable[Path] = ()
) -> Confinement:
    """What lets Python run, write in `writable`, and read `readable` besides."""
    return confinement.confinement(
        readable=[*system_files(network=network), *python_files(), *readable],
        writable=writable,
        closed=[*private_places(), *closed],
        devices=devices(gpu=False),
        network=network,
    )
