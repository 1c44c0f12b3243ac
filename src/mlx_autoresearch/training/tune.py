"""Measures the operations of a configuration on this machine, composed and by our kernels, and prints the result."""

from __future__ import annotations

import sys

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels import choice
from mlx_autoresearch.kernels.tuning import Measurement
from mlx_autoresearch.machine import compiled, device
from mlx_autoresearch.machine.lock import device_lock
from mlx_autoresearch.recipe.settings import recipe_settings


def tune(config: Config, *, again: bool) -> dict[str, choice.Choice]:
    """The choice for every operation of a training step: measured where it is not known, or `again` for all of them.

    Waits, and says so on standard error, while another process of this machine trains. Raises UserError where there is
    no GPU, for settings that the recipe refuses and for what does not fit this machine.
    """
    recipe_settings(config.recipe)
    if device.kernel_backend() is None:
        raise UserError("kernels: there is nothing to choose on a CPU: custom kernels run on Metal and CUDA")
    from mlx_autoresearch.recipe.interface import make_optimizer

    from .fit import check_fit
    from .setup import choose_kernels, compute_dtype, make_model

    config = config.model_copy(update={"kernels": "mlx"})
    with device_lock(lambda line: print(line, file=sys.stderr, flush=True)), compiled.kept():
        model = make_model(config)
        check_fit(config, model.parameter_counts(), compute_dtype(config).size)
        optimizer = make_optimizer(model, config.for_recipe())
        shapes = choose_kernels(model, optimizer, config)
        if again:
            choice.forget(shapes)
        model.kernels = optimizer.kernels = "auto"
        choose_kernels(model, optimizer, config)
    known = choice.choices()
    return {shape: known[shape] for shape in shapes}


def choices_text(choices: dict[str, choice.Choice]) -> str:
    """Both sides of every choice: milliseconds and peak memory of forward and backward, and the kernel's error."""
    lines = [f"forward and backward on {device.device_name()}; the kernel's error is in units of what is allowed"]
    for what, made in choices.items():
        sides = [f"{name} {_side(measured)}" for name, measured in made.measured.items()]
        lines += [what, f"    {'; '.join(sides)}  -> {made.chosen}"]
    return "\n".join(lines)


def _side(measured: Measurement) -> str:
    parts = []
    if measured.milliseconds is not None:
        parts.append(f"{measured.milliseconds:.3f} ms, {measured.peak_mb:,.0f} MiB")
    if measured.error is not None:
        parts.append(f"error {measured.error:.2f}")
    if measured.failure is not None:
        parts.append(measured.failure)
    return ", ".join(parts)
