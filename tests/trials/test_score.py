"""Scores of a run's checkpoint that other processes compute."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import MetricRefused
from mlx_autoresearch.metric.bits import document_bits, evaluate_bpb
from mlx_autoresearch.training.data import open_data
from mlx_autoresearch.training.run import Run
from mlx_autoresearch.training.scoring import trained_model
from mlx_autoresearch.trials.limits import Limits
from mlx_autoresearch.trials.score import confirmation_bits, score_confined
from tests.support.laboratory import make_repository
from tests.support.runs import quiet, train_in


@pytest.fixture(scope="module")
def run(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a checkpoint."""
    folder = tmp_path_factory.mktemp("runs") / "1"
    train_in(folder, tiny, score=False, reporter=quiet())
    return folder


@pytest.mark.parametrize("changed", [False, True])
def test_a_checkpoint_is_scored_document_by_document(tiny: Config, run: Path, tmp_path: Path, changed: bool) -> None:
    """The same digits from changed code, installed code and this process; their sum is the part's."""
    text = open_data(tiny).split("confirmation")
    documents = np.arange(text.info.documents)[::-1]
    code = make_repository(tmp_path / "code") if changed else None
    found = confirmation_bits(run, code, tiny, Limits(), scratch=tmp_path, mark="test", documents=documents)
    assert found.nats.shape == found.bytes.shape == documents.shape
    model, token_bytes = trained_model(Run.open(run)), open_data(tiny).tokenizer.token_bytes
    here = document_bits(model, text.tokens, text.offsets, token_bytes, documents, sequence_len=32)
    assert found.nats.tolist() == here.nats.tolist()
    lengths = [token_bytes[text.tokens[text.offsets[i] + 1 : text.offsets[i + 1]]].sum() for i in documents]
    assert found.bytes.tolist() == lengths
    whole = evaluate_bpb(model, text.tokens, text.offsets, token_bytes, eval_tokens=10**6, sequence_len=32)
    # in another order of documents rows begin elsewhere, so tokens have other contexts
    assert found.nats.sum() / (math.log(2) * found.bytes.sum()) == pytest.approx(whole.val_bpb, rel=0.02)


def changed_code(folder: Path, more: str) -> Path:
    """A snapshot whose model ends in some more lines."""
    model = make_repository(folder) / "src/mlx_autoresearch/recipe/model.py"
    model.write_text(model.read_text() + more)
    return folder


PEEK = """
_hidden = GPT.hidden
def _ahead(self, idx):
    hidden = _hidden(self, idx)
    return mx.concatenate([hidden[:, :-{last}], _hidden(self, mx.roll(idx, -1, axis=1))[:, -{last}:]], axis=1)
GPT.hidden = _ahead
"""


def test_a_model_that_looks_ahead_at_the_ends_of_rows_is_refused(tiny: Config, run: Path, tmp_path: Path) -> None:
    """At one place of 31 alone: it used to be seen in few runs."""
    code = changed_code(tmp_path / "code", PEEK.format(last=2))
    with pytest.raises(MetricRefused, match="looks ahead"):
        score_confined(run, code, tiny, Limits(), scratch=tmp_path, mark="test")


def test_what_confirms_is_checked_too(tiny: Config, run: Path, tmp_path: Path) -> None:
    code = changed_code(tmp_path / "code", PEEK.format(last=31))
    with pytest.raises(MetricRefused, match="looks ahead"):
        confirmation_bits(run, code, tiny, Limits(), scratch=tmp_path, mark="test", documents=np.arange(2))
