"""What the processes of a trial find: their environment, and what MLX has compiled before."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mlx_autoresearch.machine import compiled, device, preamble
from mlx_autoresearch.machine.paths import cache_dir
from mlx_autoresearch.sandbox.environment import clean_environment


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
