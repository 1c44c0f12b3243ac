"""Scores a language model on prepared validation data, with the settings of a configuration."""

from __future__ import annotations

from typing import Any

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.data.prepared import PreparedData

from .bits import Bpb, LanguageModel, evaluate_bpb


def score(model: LanguageModel, config: Config, data: PreparedData) -> Bpb:
    """val_bpb of a model on the validation split. Raises MetricRefused when its logits are unusable."""
    val = data.split("val")
    return evaluate_bpb(
        model,
        val.tokens,
        val.offsets,
        data.tokenizer.token_bytes,
        reference_token_bytes=data.tokenizer.reference_token_bytes,
        eval_tokens=config.evaluate.eval_tokens,
        sequence_len=config.evaluate.sequence_len,
    )


def scores(bpb: Bpb) -> dict[str, Any]:
    """The metric's entries in a run's summary."""
    return {
        "val_bpb": bpb.val_bpb,
        "val_bpb_reference_bytes": bpb.reference_bpb,
        "eval_tokens": bpb.tokens,
    }
