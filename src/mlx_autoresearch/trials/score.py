"""The metric of a run whose code is not trusted: other processes compute logits, this one turns them into bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.machine.lock import device_lock
from mlx_autoresearch.metric.bits import DocumentBits, Scored
from mlx_autoresearch.metric.causality import CUTS, check_scored
from mlx_autoresearch.metric.score import score, score_confirmation, scores
from mlx_autoresearch.sandbox.environment import temporary_folder
from mlx_autoresearch.training.data import open_data
from mlx_autoresearch.training.setup import compute_dtype

from .environment import scoring_confinement, trial_environment
from .limits import Limits
from .remote_model import RemoteModel


@contextmanager
def confined_model(
    run: Path, code: Path | None, config: Config, limits: Limits, *, scratch: Path, mark: str
) -> Iterator[RemoteModel]:
    """The model of the checkpoint in the run folder `run`, in a process of its own.

    code: the changed recipe, which is confined; None for the installed one.

    Everything that the process can write lies in a new folder below `scratch`, which is deleted afterwards: the next
    process must find nothing that this one left.
    """
    with (
        temporary_folder(scratch, "exchange") as exchange,
        RemoteModel(
            run,
            code,
            config.data.vocab_size,
            exchange=exchange,
            env=trial_environment(exchange, confined=code is not None),
            confinement=scoring_confinement(run, code, exchange) if code else None,
            seconds=limits.evaluate_seconds,
            memory_mb=limits.memory_mb,
            mark=mark,
        ) as model,
    ):
        yield model


def score_confined(
    run: Path, code: Path, config: Config, limits: Limits, *, scratch: Path, mark: str
) -> dict[str, Any]:
    """The metric's entries of a summary, for the checkpoint in `run`.

    Raises MetricRefused when the logits cannot be scored, or depend on anything but the tokens before them.
    """
    data = open_data(config)  # verified here, after the untrusted training
    scored: list[Scored] = []
    with confined_model(run, code, config, limits, scratch=scratch, mark=mark) as model:
        bpb = score(model, config, data, record=scored)
    _check(run, code, config, limits, scratch, mark, scored)
    return scores(bpb)


def confirmation_bits(
    run: Path,
    code: Path | None,
    config: Config,
    limits: Limits,
    *,
    scratch: Path,
    mark: str,
    documents: np.ndarray,
    say: Callable[[str], object] = lambda line: None,
) -> DocumentBits:
    """What the checkpoint in `run` needs for each of `documents`, indices into the part `confirmation` of the data.

    Two models, scored on the same documents, can be compared document by document. The model runs in a process of its
    own, confined where its code is changed: `code`; it is then checked as in `score_confined`. Waits while another
    process of this machine trains, and says so. Raises UserError when the data has no such part, MetricRefused when the
    logits cannot be scored, and GPUInterrupted where macOS stops the work on the GPU.
    """
    data = open_data(config)
    scored: list[Scored] = []
    with device_lock(say):
        with confined_model(run, code, config, limits, scratch=scratch, mark=mark) as model:
            bits = score_confirmation(model, config, data, documents, record=scored if code else None)
        if code is not None:
            _check(run, code, config, limits, scratch, mark, scored)
    return bits


def _check(
    run: Path, code: Path, config: Config, limits: Limits, scratch: Path, mark: str, scored: list[Scored]
) -> None:
    """Raise MetricRefused unless another process confirms what was scored; it starts when the first one is gone."""
    eps = float(mx.finfo(compute_dtype(config)).eps)
    limits = limits.model_copy(update={"evaluate_seconds": CUTS * limits.evaluate_seconds})  # so many times the rows
    with confined_model(run, code, config, limits, scratch=scratch, mark=mark) as model:
        check_scored(model, scored, vocab_size=config.data.vocab_size, eps=eps, rng=np.random.default_rng())
