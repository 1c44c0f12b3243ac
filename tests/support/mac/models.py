"""Macs, as MLX's `device_info` and macOS's `sw_vers` describe them. No field was read on a Mac: see each source.

Fields and the recommended working set: MLX's mlx/backend/metal/device_info.cpp; Metal recommends about two thirds of
the memory below 36 GB and three quarters from there on (reports in ml-explore/mlx issues).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Mac:
    """A model. memory: GB as Apple sells it, 2**30 bytes each. recommended: share that Metal recommends."""

    chip: str
    memory: int
    recommended: float
    architecture: str
    macos: str = "15.5"

    def device_info(self) -> dict[str, Any]:
        """As `mx.device_info()` of the GPU returns it."""
        memory = self.memory * 2**30
        return {
            "architecture": self.architecture,
            "device_name": self.chip,
            "max_buffer_length": memory // 2,
            "max_recommended_working_set_size": int(self.recommended * memory),
            "memory_size": memory,
            "resource_limit": 499_000,
        }


MODELS = {
    "M1 8 GB": Mac("Apple M1", 8, 2 / 3, "applegpu_g13g", "14.7"),
    "M2 16 GB": Mac("Apple M2", 16, 2 / 3, "applegpu_g14g"),
    "M3 24 GB": Mac("Apple M3", 24, 2 / 3, "applegpu_g15g"),
    "M3 Pro 36 GB": Mac("Apple M3 Pro", 36, 3 / 4, "applegpu_g15s"),
    "M4 Max 64 GB": Mac("Apple M4 Max", 64, 3 / 4, "applegpu_g16s"),
    "M4 Max 128 GB": Mac("Apple M4 Max", 128, 3 / 4, "applegpu_g16s"),
    "M5 32 GB": Mac("Apple M5", 32, 2 / 3, "applegpu_g17g", "26.2"),
}
DEFAULT = "M2 16 GB"
