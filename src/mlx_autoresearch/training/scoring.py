"""A trained GPT as the metric sees it: composed of plain MLX, and compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.data.prepared import PreparedData
from mlx_autoresearch.metric.bits import Bpb, LanguageModel
from mlx_autoresearch.metric.score import score, score_reference
from mlx_autoresearch.recipe.interface import GPT

from .run import Run
from .setup import make_model


def trained_model(run: Run) -> GPT:
    """The model of a run's checkpoint, its operations composed of plain MLX. Raises UserError where there is none."""
    model = make_model(run.config().model_copy(update={"kernels": "mlx"}))
    run.load_checkpoint(model)
    return model


@contextmanager
def for_scoring(model: GPT) -> Iterator[LanguageModel]:
    """`model` without custom kernels, compiled: half the time, the same digits. Its kernels are put back at the end.

    The metric must depend on no choice of kernels: so it also shows a kernel that is wrong.
    """
    kernels, model.kernels = model.kernels, "mlx"
    try:
        yield _Compiled(model)
    finally:
        model.kernels = kernels


def score_model(model: GPT, config: Config, data: PreparedData) -> Bpb:
    """val_bpb of a GPT on the validation split. Raises MetricRefused when its logits are unusable."""
    with for_scoring(model) as language_model:
        return score(language_model, config, data)


def score_model_as_reference(model: GPT, config: Config, data: PreparedData) -> float:
    """val_bpb_reference of a GPT. Raises MetricRefused when its logits are unusable."""
    with for_scoring(model) as language_model:
        return score_reference(language_model, config, data)


class _Compiled:
    """The two functions that the metric calls."""

    def __init__(self, model: GPT):
        self.hidden, self.logits = mx.compile(model.hidden), mx.compile(model.logits)
