"""What a configuration builds: model, optimizer, compiled step, batches and the choice of kernels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.data.packing import PackedBatches
from mlx_autoresearch.data.prepared import PreparedData
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels.launch import BrokenKernel, launches, try_out
from mlx_autoresearch.kernels.operation import UnfitKernel, measuring, recording
from mlx_autoresearch.machine import allocator, device
from mlx_autoresearch.recipe import interface
from mlx_autoresearch.recipe.interface import GPT, MuonAdamW, Step

from .fit import check_fit


@dataclass
class Training:
    """All that the loop works on, built from a configuration.

    kernels: which implementation each operation of a step uses. The rest changes from step to step. smooth_loss: the
    running mean, before its correction for starting at 0. peak_memory: bytes. position: where in the data the next
    micro-batch to train on begins; `batches` itself is further on, since batches are made ahead.
    """

    config: Config
    model: GPT
    optimizer: MuonAdamW
    step: Step
    batches: PackedBatches
    kernels: dict[str, str]
    smooth_loss: float = 0.0
    peak_memory: int = 0
    position: dict[str, Any] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        """What the next process needs, besides weights and the optimizer's state, for the checkpoint."""
        return {"smooth_loss": self.smooth_loss, "peak_memory": self.peak_memory, "batches": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint. Raises KeyError when it lacks an entry."""
        self.smooth_loss, self.peak_memory = state["smooth_loss"], state["peak_memory"]
        self.batches.load_state_dict(state["batches"])


def setup(config: Config, data: PreparedData) -> Training:
    """A training that stands before its first step, seeded.

    Raises UserError when the recipe refuses its settings or the kernels the model's shapes, and OutOfMemory for a model
    that cannot fit.
    """
    mx.random.seed(config.train.seed)
    told = config.for_recipe()
    model = make_model(config)
    check_fit(config, model.parameter_counts(), compute_dtype(config).size)
    optimizer = interface.make_optimizer(model, told)
    kernels = choose_kernels(model, optimizer, config)
    mx.eval(model.parameters(), optimizer.state)
    train = data.split("train")
    batches = PackedBatches(
        train.tokens,
        train.offsets,
        batch_size=config.train.device_batch_size,
        sequence_len=config.model.sequence_len,
        seed=config.train.seed,
    )
    return Training(config, model, optimizer, interface.make_step(model, optimizer, told), batches, kernels)


def compute_dtype(config: Config) -> mx.Dtype:
    """The dtype of activations: as configured, or the device's default."""
    if config.train.compute_dtype == "auto":
        return device.default_compute_dtype()
    return getattr(mx, config.train.compute_dtype)


def make_model(config: Config) -> GPT:
    """A freshly initialised model of a configuration. On a CPU this process keeps freed memory from now on."""
    if not device.is_gpu():
        allocator.keep_freed_memory()
    return interface.make_model(config.for_recipe(), compute_dtype(config))


def choose_kernels(model: GPT, optimizer: MuonAdamW, config: Config) -> dict[str, str]:
    """Which implementation every operation of a step uses, by its shapes; `auto` measures what it does not know.

    Raises UserError when the kernels do not take the model's shapes.
    """
    try:
        with recording() as used, launches() as launched, measuring():
            interface.trace_step(model, optimizer, config.for_recipe())
        if config.kernels != "auto":  # which tries its kernels out itself, and leaves the broken ones
            for kernel in launched:
                try_out(kernel)
            mx.clear_cache()
    except (UnfitKernel, BrokenKernel) as error:
        raise UserError(f"kernels: {config.kernels}: {error}; kernels: auto chooses what works") from None
    return used


def kernels_used(choices: dict[str, str]) -> str:
    """Each operation with what it used, in one line."""
    names = sorted({what.split()[0] for what in choices})
    used = {name: sorted({choice for what, choice in choices.items() if what.split()[0] == name}) for name in names}
    return ", ".join(f"{name} {'+'.join(choices)}" for name, choices in used.items())
