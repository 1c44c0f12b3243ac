"""What was measured of a configuration's operations, as a table."""

from __future__ import annotations

from typing import Literal

from mlx_autoresearch import device
from mlx_autoresearch.config import Config
from mlx_autoresearch.errors import UserError

from . import tuning


def tune(config: Config, *, again: bool) -> dict[str, tuning.Choice]:
    """The choice for every operation of a training step, measured where it is not known, or all of them `again`.

    Raises UserError where there is no GPU.
    """
    if device.kernel_backend() is None:
        raise UserError("kernels: there is nothing to choose on a CPU: custom kernels run on Metal and CUDA")
    from mlx_autoresearch.optimizer import MuonAdamW
    from mlx_autoresearch.trainer import choose_kernels, make_model

    if again:
        tuning.forget()
    config = config.model_copy(update={"kernels": "auto"})
    model = make_model(config)
    optimizer = MuonAdamW.for_gpt(model, **config.optimizer.model_dump())
    optimizer.init(model.parameters())
    used = choose_kernels(model, optimizer, config)
    known = tuning.choices()
    return {what: known[what] for what in used}


def print_choices(choices: dict[str, tuning.Choice]) -> None:
    """Both sides of every choice: milliseconds and peak memory of forward and backward, and how far they differ."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"forward and backward on {device.device_name()}")
    table.add_column("operation")
    for heading in ("MLX ms", "kernel ms", "MLX MiB", "kernel MiB", "difference / allowed", "chosen"):
        table.add_column(heading, justify="right")
    for what, choice in choices.items():
        mlx, kernel = choice.measured["mlx"], choice.measured[str(device.kernel_backend())]
        cells = [_cell(m, "milliseconds", ".3f") for m in (mlx, kernel)] + [
            _cell(m, "peak_mb", ".0f") for m in (mlx, kernel)
        ]
        table.add_row(what, *cells, _cell(kernel, "difference", ".2f"), choice.chosen)
    console = Console()
    console.print(table)
    for what, choice in choices.items():
        for name, measured in choice.measured.items():
            if measured.error:
                console.print(f"{what}: {name}: {measured.error}", markup=False, soft_wrap=True)


def _cell(measured: tuning.Measurement, name: Literal["milliseconds", "peak_mb", "difference"], form: str) -> str:
    value = getattr(measured, name)
    return "-" if value is None else format(value, form)
