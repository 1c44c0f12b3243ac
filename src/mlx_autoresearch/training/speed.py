"""How much of a device's arithmetic a training uses: model FLOPs utilisation (MFU)."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from mlx_autoresearch.machine import device

_IMPLAUSIBLE = 90.0  # percent; above it the peak was measured while the machine was busy


@dataclass(frozen=True)
class Peaks:
    """FLOP/s of matrix products: the most measured on this machine, and the maker's figure where it is known."""

    dtype: mx.Dtype
    measured: float
    published: float | None

    @classmethod
    def here(cls, dtype: mx.Dtype) -> Peaks:
        """Of the default device; measured once on a machine, in under a second, and remembered."""
        return cls(dtype, device.matmul_peak_flops(dtype), device.published_peak_flops(device.device_name(), dtype))

    def checked(self, flops_per_token: float, tokens_per_second: float) -> Peaks:
        """These, or, where a training was faster than the measured peak allows, that peak measured anew."""
        if mfu_percent(flops_per_token, tokens_per_second, self.measured) <= _IMPLAUSIBLE:
            return self
        return Peaks(self.dtype, device.matmul_peak_flops(self.dtype, again=True), self.published)


def mfu_percent(flops_per_token: float, tokens_per_second: float, peak_flops: float) -> float:
    """FLOPs of the model per second, in percent of the device's peak."""
    return 100 * flops_per_token * tokens_per_second / peak_flops
