"""What a configuration builds: the model in its precision, with kernels chosen, if it fits in memory."""

from __future__ import annotations

import mlx.core as mx

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels.operation import UnfitKernel, measuring, recording
from mlx_autoresearch.machine import device
from mlx_autoresearch.recipe.model import GPT
from mlx_autoresearch.recipe.muon import newton_schulz
from mlx_autoresearch.recipe.optimizer import MuonAdamW, MuonGroup


def compute_dtype(config: Config) -> mx.Dtype:
    """The dtype of activations: as configured, or the device's default."""
    if config.train.compute_dtype == "auto":
        return device.default_compute_dtype()
    return {"float32": mx.float32, "bfloat16": mx.bfloat16}[config.train.compute_dtype]


def make_model(config: Config) -> GPT:
    """A freshly initialised model of a configuration."""
    return GPT(config.gpt_config(), compute_dtype(config), config.kernels)


def choose_kernels(model: GPT, optimizer: MuonAdamW, config: Config) -> dict[str, str]:
    """Which implementation every operation of a step uses, by its shapes; `auto` measures what it does not know.

    Builds a step without computing it. Raises UserError when the kernels do not take the model's shapes.
    """
    rows = mx.zeros((config.train.device_batch_size, config.model.sequence_len), mx.int32)
    try:
        with recording() as used, measuring():
            model.loss(rows, rows)
            for group in optimizer.groups:
                if isinstance(group, MuonGroup):
                    momentum = optimizer.state["momentum_buffer"][group.names[0]]
                    newton_schulz(momentum, group.ns_steps, optimizer.ns_dtype, implementation=optimizer.kernels)
    except UnfitKernel as error:
        raise UserError(f"kernels: {config.kernels}: {error}; kernels: auto chooses what fits") from None
    return used


def kernels_used(choices: dict[str, str]) -> str:
    """Each operation with what it used, in one line."""
    names = sorted({what.split()[0] for what in choices})
    used = {name: sorted({choice for what, choice in choices.items() if what.split()[0] == name}) for name in names}
    return ", ".join(f"{name} {'+'.join(choices)}" for name, choices in used.items())


def check_memory(model: GPT, config: Config) -> None:
    """Raise UserError for what cannot possibly fit: MLX would crash, or be killed, without a word."""
    shape, tokens = model.config, config.train.device_batch_size * config.model.sequence_len
    parameters = 12 * model.parameter_counts()["total"]  # float32 weights, gradients and momentum
    activations = 8 * shape.n_layer * shape.n_embd * tokens * compute_dtype(config).size  # kept for the backward pass
    total = device.memory_limits().total
    if parameters + activations > total:
        raise UserError(
            f"training needs {(parameters + activations) / 2**30:,.0f} GiB at least ({parameters / 2**30:,.0f} for the "
            f"model, {activations / 2**30:,.0f} for a micro-batch) of {total / 2**30:,.0f}: lower "
            "train.device_batch_size or the model's size"
        )
