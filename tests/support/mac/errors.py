"""What MLX raises on a Mac, as RuntimeError but for the last; texts from its Metal backend and from reports to MLX."""

from __future__ import annotations

_FAILED = "[METAL] Command buffer execution failed: "
INTERACTIVITY = _FAILED + "Impacting Interactivity (0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)."
TIMEOUT = _FAILED + "Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout)."
MEMORY = _FAILED + "Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)."
HANG = _FAILED + "Caused GPU Hang Error (00000003:kIOGPUCommandBufferCallbackErrorHang)."
VICTIM = _FAILED + "Discarded (victim of GPU error/recovery) (00000005:kIOGPUCommandBufferCallbackErrorInnocentVictim)."
IGNORED = (
    _FAILED + "Ignored (for causing prior/excessive GPU errors) "
    "(00000004:kIOGPUCommandBufferCallbackErrorSubmissionsIgnored)."
)
PAGE_FAULT = _FAILED + "Caused GPU Address Fault Error (0000000b:kIOGPUCommandBufferCallbackErrorPageFault)."
COMPILE = (
    "[metal::Device] Unable to build metal library from source\nprogram_source:29:10: error: expected unqualified-id\n"
)


def too_many_threads(threads: int, most: int) -> str:
    """A ValueError, when a kernel is evaluated."""
    return f"Thread group size ({threads}) is greater than  the maximum allowed threads per threadgroup ({most})."
