"""A simulated Mac: this Linux machine gives the package macOS's answers, in this process and in all that it starts.

`python -m tests.support.mac -m pytest tests/sandbox` runs a whole suite in it; the fixture `mac` puts one test into it.

- `startup/sitecustomize.py` makes every Python process answer as on macOS: the system's name, no /proc, none of Linux's
  own functions in `os`, hidden environments of Apple's programs, MLX's `device_info` of a Mac.
- `file_control.py` answers macOS's own commands of `fcntl`; `sbpl.py` reads the profiles of `sandbox-exec`.
- `processes.py` hides environments, and has libproc, which tells how much memory a process takes.
- `bin/` holds the programs of macOS that the package calls, as stand-ins. They come first on PATH.
- `models.py` has the Macs, `errors.py` what MLX raises there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .models import DEFAULT, MODELS

HERE = Path(__file__).parent
MODEL = "SIMULATED_MAC"  # the environment variable: one of MODELS


def environment(model: str = DEFAULT) -> dict[str, str]:
    """The variables that put a process, and its children, into the simulated Mac."""
    assert model in MODELS
    # Stand-ins that are Python programs run in this environment.
    paths = {"PYTHONPATH": [HERE / "startup"], "PATH": [HERE / "bin", Path(sys.executable).parent]}
    # Confined programs read Xcode's folder, wherever it is: here the stand-ins, which their Python needs, are in it.
    return {MODEL: model, "DEVELOPER_DIR": str(HERE.parents[1])} | {
        name: os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get(name)])])
        for name, folders in paths.items()
    }
