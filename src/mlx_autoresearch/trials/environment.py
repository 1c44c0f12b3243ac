"""What the processes of a trial find: their environment, what MLX has compiled before, and what they may read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.data.prepared import PreparedData, downloads_folder
from mlx_autoresearch.kernels import choice
from mlx_autoresearch.machine import compiled, device, preamble
from mlx_autoresearch.machine.paths import cache_dir
from mlx_autoresearch.sandbox.confinement import Confinement, confinement
from mlx_autoresearch.sandbox.environment import clean_environment
from mlx_autoresearch.sandbox.readable import devices, private_places, python_files, system_files
from mlx_autoresearch.simulator import build
from mlx_autoresearch.training.files import CHECKPOINT, CONFIG


def trial_environment(scratch: Path, *, confined: bool) -> dict[str, str]:
    """The environment variables of a trial's process, whose home is `scratch`.

    MLX keeps what it compiles below TMPDIR. A trusted process shares that folder with all others; a confined one gets
    copies in `scratch`: it could write to a shared or linked file, and so change what trusted processes compute. The
    precompiled header alone is linked, and made before: the code of a trial that is confined is new, and compiles.
    """
    temporary, more = Path(tempfile.gettempdir()), {}
    if confined:
        shared, own = compiled.loops_folder(), compiled.loops_folder(scratch)
        if (backend := device.kernel_backend()) is None:
            compiled.restore_loops()
        compiled.copy_loops(shared, own)
        if backend is None and preamble.precompile(shared):
            preamble.share(shared, own)
        if backend == "cuda":
            more[compiled.PTX_FOLDER] = str(scratch / "ptx")
            compiled.copy_ptx(scratch / "ptx")
        temporary = scratch
    return clean_environment(scratch, temporary, MLX_AUTORESEARCH_CACHE=str(cache_dir().absolute()), **more)


def training_confinement(config: Config, data: PreparedData, code: Path, scratch: Path) -> Confinement:
    """A training reads its code and, of the prepared data, all that is needed to train: no held-out token."""
    return _confinement([code, *data.training_files()], scratch, closed=_texts(config))


def scoring_confinement(run: Path, code: Path, exchange: Path) -> Confinement:
    """A process that computes logits reads its code, our configuration and the checkpoint: no data, and no other file
    of the run, in which its training could have left more than it was timed for."""
    return _confinement([code, run / CONFIG, run / CHECKPOINT], exchange, closed=())


def _confinement(readable: Iterable[Path], scratch: Path, closed: Iterable[Path]) -> Confinement:
    cache = cache_dir()
    known = [cache / choice.FILE, cache / device.PEAKS, build.cache_folder(), preamble.header(compiled.loops_folder())]
    return confinement(
        readable=[*system_files(network=False), *python_files(), *readable, *known],
        writable=[scratch],
        closed=[*private_places(), cache, *closed],
        devices=devices(gpu=device.is_gpu()),
        network=False,
    )


def _texts(config: Config) -> list[Path]:
    """The files that the data was made from. Those of Python's own library must stay readable: it imports them."""
    source = config.data.source
    if source.kind == "stdlib":
        return []
    return [path for _, path in source.files(downloads_folder(cache_dir()))]
