"""Whether a training fits this machine: into its memory, and on a Mac into the time that macOS leaves a GPU."""

from __future__ import annotations

import os
from math import isqrt

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import OutOfMemory, UserError
from mlx_autoresearch.machine import device

from .memory import is_banded, memory_needed, mlp_hidden, tokens_at_once

LONGEST_DISPATCH = 0.25e12  # FLOP: 0.1 s at the 2.6 TFLOP/s that Apple gives for an M1
_RELAXED = "AGX_RELAX_CDM_CTXSTORE_TIMEOUT"  # with it set, macOS's watchdog waits longer


def check_fit(config: Config, parameters: dict[str, int], itemsize: int) -> None:
    """Refuse what does not fit, and name the largest train.device_batch_size that does.

    parameters: counts by role, as `GPT.parameter_counts` gives them. itemsize: bytes of an activation. Both checks go
    by the recipe as it is shipped. Raises OutOfMemory for the memory, else UserError for the watchdog.
    """
    if (refusal := _refusal(config, parameters, itemsize)) is None:
        return
    rows = largest_batch(config, parameters, itemsize)
    remedy = f"train.device_batch_size={rows} fits" if rows else "lower the model's size or model.sequence_len"
    raise type(refusal)(f"train.device_batch_size={config.train.device_batch_size}: {refusal}; {remedy}")


def largest_batch(config: Config, parameters: dict[str, int], itemsize: int) -> int | None:
    """The largest train.device_batch_size that fits, total_batch_size as it is; None where none does."""
    sequences = config.train.total_batch_size // config.model.sequence_len
    small = [n for n in range(1, isqrt(sequences) + 1) if sequences % n == 0]
    for rows in sorted({*small, *(sequences // n for n in small)}, reverse=True):
        train = config.train.model_copy(update={"device_batch_size": rows})
        if _refusal(config.model_copy(update={"train": train}), parameters, itemsize) is None:
            return rows
    return None


def memory_warning(peak: int) -> str | None:
    """What to say of a step that took `peak` bytes: more than the GPU recommends, and macOS may swap."""
    limits = device.memory_limits()
    if peak <= limits.recommended or limits.recommended == limits.total:
        return None
    return (
        f"a step takes {_gib(peak)}, more than the {_gib(limits.recommended)} that Metal recommends: this Mac may swap "
        "and slow down; lower train.device_batch_size"
    )


def longest_dispatch(config: Config) -> tuple[str, float]:
    """The longest piece of work that a training step gives a GPU at once: its name, and FLOP.

    Of what grows with the micro-batch: the MLP's product, the logits of a chunk, and attention's gradient in keys and
    values, four products for every key that a query sees; MLX computes the hidden ones too where one mask serves a row.
    """
    shape, rows = config.gpt_config(), config.train.device_batch_size
    T, C, V = shape.sequence_len, shape.n_embd, shape.vocab_size
    windows = {window if is_banded(T, window) else T for window in shape.window_sizes}
    seen = max(sum(min(query, window) + 1 for query in range(T)) for window in windows)
    work = {
        "the MLP's product": 2.0 * rows * T * C * mlp_hidden(shape),
        "the product with the unembedding": 2.0 * tokens_at_once(rows * T, V, gpu=True) * V * C,
        "attention's gradient": 8.0 * rows * seen * C,
    }
    name = max(work, key=work.__getitem__)
    return name, work[name]


def _refusal(config: Config, parameters: dict[str, int], itemsize: int) -> UserError | None:
    limits, backend = device.memory_limits(), device.kernel_backend()
    kernels = config.kernels == "custom" or (config.kernels == "auto" and backend == "cuda")  # Metal: not known yet
    needed = memory_needed(config, parameters, itemsize=itemsize, backend=backend, kernels=kernels)
    if needed > limits.recommended:
        than = "Metal recommends" if limits.recommended < limits.total else "there is"
        return OutOfMemory(
            f"training needs about {_gib(needed)} of memory, more than {than}, {_gib(limits.recommended)}"
        )
    name, work = longest_dispatch(config)
    if backend == "metal" and work > LONGEST_DISPATCH and os.environ.get(_RELAXED) != "1":
        return UserError(
            f"{name} is {work / 1e12:.2f} TFLOP in one piece, and macOS may stop a GPU that works long at once "
            f"(allowed: {LONGEST_DISPATCH / 1e12}, or any with {_RELAXED}=1)"
        )
    return None


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
