"""Scores a language model on prepared held-out text, with the settings of a configuration."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.data.prepared import PreparedData
from mlx_autoresearch.errors import UserError

from .bits import Bpb, DocumentBits, LanguageModel, Scored, document_bits, evaluate_bpb, reference_bpb

_LEAST_ROWS = 16  # of the holdout


def score(model: LanguageModel, config: Config, data: PreparedData, *, record: list[Scored] | None = None) -> Bpb:
    """val_bpb of a model. record: gets every batch. Raises MetricRefused when its logits are unusable."""
    return _score(model, config, data, "val", record)


def score_holdout(model: LanguageModel, config: Config, data: PreparedData) -> Bpb:
    """Bits per byte on the holdout, for one last measurement: text that no decision has seen.

    It shows whether many decisions have fitted the validation text by chance. Where documents are pieces of files
    (stdlib, text, gutenberg), both come from the same files, so they resemble each other. Raises UserError when the
    holdout has less than 16 rows of text, and MetricRefused when the logits are unusable.
    """
    tokens = data.split("holdout").info.tokens
    if tokens < _LEAST_ROWS * (config.evaluate.sequence_len + 1):
        raise UserError(
            f"the holdout has {tokens:,} tokens, which is too little to score: give a search more text or a larger "
            "data.source.val_fraction"
        )
    return _score(model, config, data, "holdout")


def score_confirmation(
    model: LanguageModel,
    config: Config,
    data: PreparedData,
    documents: np.ndarray,
    *,
    record: list[Scored] | None = None,
) -> DocumentBits:
    """Nats and bytes of each of `documents`, indices into the part `confirmation`, to compare two models in pairs.

    record: gets every batch. Raises UserError when there is no such part, MetricRefused when the logits are unusable.
    """
    text = data.split("confirmation")
    return document_bits(
        model,
        text.tokens,
        text.offsets,
        data.tokenizer.token_bytes,
        documents,
        sequence_len=config.evaluate.sequence_len,
        record=record,
    )


def score_reference(model: LanguageModel, config: Config, data: PreparedData) -> float:
    """val_bpb_reference: as the reference measures it, on all held-out text. To compare with published figures only.

    Raises MetricRefused when the logits are unusable.
    """
    tokens, offsets = data.held_out()
    return reference_bpb(model, tokens, offsets, data.tokenizer.reference_token_bytes, **config.evaluate.model_dump())


def scores(bpb: Bpb) -> dict[str, Any]:
    """The metric's entries in a run's summary."""
    return {
        "val_bpb": bpb.val_bpb,
        "eval_tokens": bpb.tokens,
        "eval_share": bpb.share,
    }


def _score(
    model: LanguageModel,
    config: Config,
    data: PreparedData,
    part: Literal["val", "holdout"],
    record: list[Scored] | None = None,
) -> Bpb:
    text, token_bytes = data.split(part), data.tokenizer.token_bytes
    settings = config.evaluate.model_dump()
    return evaluate_bpb(model, text.tokens, text.offsets, token_bytes, record=record, **settings)
