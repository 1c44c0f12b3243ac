"""`mlx-autoresearch bench`: how fast this machine trains, in about a minute, by steps on random tokens."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle

import mlx.core as mx
import numpy as np

from mlx_autoresearch.config.load import load_config
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.kernels import choice
from mlx_autoresearch.machine import compiled, device
from mlx_autoresearch.machine.awake import awake
from mlx_autoresearch.machine.lock import device_lock
from mlx_autoresearch.recipe import interface
from mlx_autoresearch.recipe.settings import recipe_settings

from .compilation import Compilation
from .fit import check_fit, largest_batch, memory_warning
from .progress import Reporter
from .setup import choose_kernels, compute_dtype, make_model
from .speed import Peaks

SECONDS = 15.0  # of counted steps, for each configuration
LEAST, MOST = 3, 100  # steps, however long they take
_REFERENCE = {"data.vocab_size": 8192, "model.depth": 8, "model.sequence_len": 2048}  # configs/reference.yaml
_REFERENCE_ROWS = {"gpu": 16, "cpu": 1}  # of a step, where the reference has 256: a step on a CPU would take minutes


@dataclass(frozen=True)
class Measured:
    """What one configuration took; times in seconds, memory in bytes.

    choosing: building the model and, with `kernels: auto` on a new machine, measuring kernels. first_step: with
    compilation, of which `compiling` is known on a CPU alone. kernels: the implementation that each operation uses.
    measured: what `kernels: auto` knows of both implementations, by operation.
    """

    name: str
    config: Config
    parameters: int
    flops_per_token: int
    choosing: float
    first_step: float
    compiling: float | None
    steps: list[float]
    peak_memory: int
    kernels: dict[str, str]
    measured: dict[str, choice.Choice]

    @property
    def median(self) -> float:
        """Seconds of the median step."""
        return statistics.median(self.steps)

    @property
    def tokens_per_second(self) -> float:
        """At the median step."""
        return self.config.train.total_batch_size / self.median


@dataclass(frozen=True)
class Bench:
    """All that was measured. left_out: why a shipped configuration was not, by its name."""

    peaks: Peaks
    measured: list[Measured]
    left_out: dict[str, str]


def bench(own: Config | None = None, overrides: Iterable[str] = (), *, steps: int | None = None) -> Bench:
    """Measure the shipped configurations with `overrides`, or `own` alone; exactly so many counted steps, if given.

    Progress goes to standard error. Waits while another process of this machine trains. Raises UserError when the
    recipe refuses its settings or the kernels the model's shapes, and OutOfMemory when `own` does not fit.
    """
    configs = {"own": own} if own is not None else shipped(list(overrides))
    for config in configs.values():
        recipe_settings(config.recipe)
    reporter = Reporter(sys.stderr)
    measured: list[Measured] = []
    left_out: dict[str, str] = {}
    with awake(reporter.say), device_lock(reporter.say), compiled.kept():
        peaks = Peaks.here(compute_dtype(next(iter(configs.values()))))
        for name, config in configs.items():
            try:
                fitting = _fitting(config)
            except UserError as error:
                if own is not None:
                    raise
                left_out[name] = str(error)
                continue
            measured.append(_measure(name, config if own is not None else fitting, steps, reporter))
            gc.collect()
            mx.clear_cache()
    return Bench(peaks, measured, left_out)


def shipped(overrides: list[str]) -> dict[str, Config]:
    """configs/default.yaml, and configs/reference.yaml with fewer rows a step; for each `overrides` win.

    They are given here, since an installed package has no folder configs.
    """
    rows = _REFERENCE_ROWS["gpu" if device.is_gpu() else "cpu"]
    batch = {"train.device_batch_size": rows, "train.total_batch_size": rows * _REFERENCE["model.sequence_len"]}
    reference = [f"{key}={value}" for key, value in (_REFERENCE | batch).items()]
    return {"default": load_config(None, overrides), "reference": load_config(None, [*reference, *overrides])}


def _fitting(config: Config) -> Config:
    """With fewer rows at a time where the configured ones do not fit. Raises what `check_fit` raises if none do."""
    model, itemsize = make_model(config), compute_dtype(config).size
    try:
        check_fit(config, model.parameter_counts(), itemsize)
    except UserError:
        rows = largest_batch(config, model.parameter_counts(), itemsize)
        if rows is None:
            raise
        train = config.train.model_copy(update={"device_batch_size": rows})
        return config.model_copy(update={"train": train})
    return config


def _measure(name: str, config: Config, steps: int | None, reporter: Reporter) -> Measured:
    """One configuration from its model to its last step; as `training.setup` and `training.loop` go about it."""
    reporter.say(f"{name}: building the model and choosing kernels")
    told, started = config.for_recipe(), time.perf_counter()
    mx.random.seed(config.train.seed)
    model = make_model(config)
    check_fit(config, model.parameter_counts(), compute_dtype(config).size)
    optimizer = interface.make_optimizer(model, told)
    kernels = choose_kernels(model, optimizer, config)
    mx.eval(model.parameters(), optimizer.state)
    choosing = time.perf_counter() - started
    step, batches = interface.make_step(model, optimizer, told), _batches(config)
    mx.reset_peak_memory()

    def timed(number: int) -> float:
        started = time.perf_counter()
        interface.set_schedule(optimizer, told, progress=0.0, step=number)
        step(batches).item()
        return time.perf_counter() - started

    reporter.say(f"{name}: first step")
    with Compilation(reporter) as compilation:
        first = timed(0)
        compilation.end()
        compiling = compilation.seconds()
    reporter.say(f"{name}: steps of {config.train.total_batch_size:,} tokens")
    seconds: list[float] = []
    while len(seconds) < (LEAST if steps is None else steps) or (
        steps is None and sum(seconds) < SECONDS and len(seconds) < MOST
    ):
        seconds.append(timed(len(seconds) + 1))
    peak = mx.get_peak_memory()
    if warning := memory_warning(peak):
        reporter.warn(warning)
    known = choice.choices() if device.kernel_backend() else {}
    return Measured(
        name=name,
        config=config,
        parameters=model.parameter_counts()["total"],
        flops_per_token=model.flops_per_token(),
        choosing=choosing,
        first_step=first,
        compiling=compiling,
        steps=seconds,
        peak_memory=peak,
        kernels=kernels,
        measured={what: known[what] for what in kernels if what in known},
    )


def _batches(config: Config) -> Iterator[tuple[mx.array, mx.array]]:
    """Micro-batches without end; a token of rank k is drawn in proportion to 1 / k, as words are."""
    rng, V = np.random.default_rng(0), config.data.vocab_size
    shape = config.accumulation_steps, config.train.device_batch_size, config.model.sequence_len + 1
    rows = (float(V) ** rng.random(shape) - 1).astype(np.int32)
    return ((mx.array(micro[:, :-1]), mx.array(micro[:, 1:])) for micro in cycle(rows))
