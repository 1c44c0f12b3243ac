"""Whether this machine, or the simulated Mac, confines commands."""

from __future__ import annotations

import pytest

from mlx_autoresearch.sandbox import confinement

HERE = confinement.here()
confined = pytest.mark.skipif(HERE.startswith("none"), reason=HERE)
