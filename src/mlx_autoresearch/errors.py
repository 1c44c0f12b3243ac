"""The exceptions that a user is meant to read: the command line prints them as one line, without a traceback.

    ReportedError
    ├── UserError            exit code 2: the user can put it right (bad input, missing data, a full disk)
    │   └── OutOfMemory      the configuration does not fit into this machine's memory
    └── RunFailed            exit code 1: the run cannot give a result
        ├── GPUInterrupted   macOS stopped the work on the GPU
        ├── LossExploded     the training loss became NaN, infinite or far worse than a uniform guess
        └── MetricRefused    the model breaks the metric's rules: logits not finite, of a wrong shape, or looking ahead

The message is one line that says what was wrong and, where there is a remedy, what to do. A subclass exists only where
somebody must tell the kinds apart, and then by its type, never by its message.
"""

from __future__ import annotations

from typing import ClassVar

# Of Metal's errors (kIOGPUCommandBufferCallbackError...) those that are no kernel's fault for certain.
# A page fault is not among them: that is an access out of bounds.
_INTERRUPTED = (
    *("Impacting Interactivity", "ImpactingInteractivity", "GPU Timeout", "GPU Hang", "InnocentVictim"),
    *("victim of GPU error", "SubmissionsIgnored", "Ignored (for causing prior", "DeviceRemoved", "AccessRevoked"),
    *("BackgroundExecutionNotPermitted",),
)
_OUT_OF_MEMORY = ("alloc", "out of memory", "Insufficient Memory", "CommandBufferCallbackErrorOutOfMemory")
GPU_INTERRUPTED = (
    "macOS stopped the work on the GPU: let the display sleep, lower train.device_batch_size, or set "
    "AGX_RELAX_CDM_CTXSTORE_TIMEOUT=1"
)
OUT_OF_MEMORY = "out of memory: lower train.device_batch_size or the model's size"
_MLX = {  # part of the message of an MLX error: what to do
    "Could not load C++ shared library": "a kernel's compilation was cut short: run again",
    "filesystem error": "MLX cannot keep its compiled kernels: make room, or set TMPDIR to a folder that has some",
}


class ReportedError(Exception):
    """A failure that is told in one line; the command line ends with `exit_code`."""

    exit_code: ClassVar[int] = 1


class UserError(ReportedError):
    """Something the user can put right: bad input, missing data, a full disk."""

    exit_code = 2


class OutOfMemory(UserError):
    """The configuration does not fit into memory."""


class RunFailed(ReportedError):
    """A run that cannot give a result."""


class GPUInterrupted(RunFailed):
    """macOS stopped the work on the GPU, as its watchdog does. It may work the next time."""


class LossExploded(RunFailed):
    """The training loss is NaN, infinite, or far above that of a uniform guess."""


class MetricRefused(RunFailed):
    """The metric refuses the model: its logits are not finite, have a wrong shape, or depend on later tokens."""


def from_mlx(error: RuntimeError | MemoryError | ValueError) -> ReportedError | None:
    """What a user can do about an error that MLX raised; None where it is unknown.

    MLX raises RuntimeError for everything, so this is the one place where kinds are told apart by text.
    """
    text = str(error)
    if isinstance(error, MemoryError) or any(part in text for part in _OUT_OF_MEMORY):
        return OutOfMemory(f"{OUT_OF_MEMORY} ({text})")
    if any(part in text for part in _INTERRUPTED):
        return GPUInterrupted(f"{GPU_INTERRUPTED} ({text})")
    advice = next((advice for part, advice in _MLX.items() if part in text), None)
    return None if advice is None else UserError(f"{advice} ({text})")


def raise_interruption(error: Exception) -> None:
    """Raise GPUInterrupted where that is what MLX's error means: whatever was computed is not to blame for it."""
    if isinstance(error, RuntimeError) and isinstance(reported := from_mlx(error), GPUInterrupted):
        raise reported from error
