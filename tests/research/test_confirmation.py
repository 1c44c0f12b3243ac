"""Keeps are confirmed on other text: the pieces, the comparison, and what a search makes of the answer."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import GPUInterrupted, MetricRefused
from mlx_autoresearch.ledger.ledger import Ledger, Record
from mlx_autoresearch.metric.bits import DocumentBits
from mlx_autoresearch.research.confirmation import NO, YES, Gain, pieces
from mlx_autoresearch.research.home import Search
from tests.support.laboratory import SEEDS, Quiet, free_trial, make_search, run_search
from tests.support.records import RECORD

LN2 = math.log(2)


def prepared(*tokens: int) -> Any:
    """Prepared data whose confirmation text has documents of so many tokens."""
    offsets = np.concatenate([[0], np.cumsum(np.array(tokens) + 1)])
    manifest = SimpleNamespace(splits={"confirmation": None} if tokens else {})
    return SimpleNamespace(manifest=manifest, split=lambda name: SimpleNamespace(offsets=offsets))


@pytest.mark.parametrize(
    ("documents", "eval_tokens", "count"),
    [(6400, 10_000, 64), (1000, 10_000, 32), (100, 10_000, 4), (100, 100_000, 1), (40, 100, 2), (16, 1000, 1)],
)
def test_the_text_is_cut_into_disjoint_pieces_that_hold_all_of_it(documents: int, eval_tokens: int, count: int):
    text = pieces(prepared(*[100] * documents), eval_tokens)
    assert len(text) == count
    assert sorted(np.concatenate(text).tolist()) == list(range(documents))
    assert min(map(len, text)) >= 16


def test_too_little_text_has_no_piece():
    assert pieces(prepared(*[100] * 15), 100) == []
    assert pieces(prepared(), 100) == []


def scored(bits: np.ndarray, sizes: np.ndarray) -> DocumentBits:
    return DocumentBits(bits * sizes * LN2, sizes)


def test_the_gain_is_in_bits_per_byte_over_all_documents_and_seeds():
    sizes = np.array([100, 300])
    best = [scored(np.array([2.0, 1.0]), sizes), scored(np.array([2.2, 1.0]), sizes)]
    candidate = [scored(np.array([1.8, 1.0]), sizes), scored(np.array([1.8, 1.0]), sizes)]
    found = Gain.of(candidate, best)
    assert found.gain == pytest.approx(0.3 * 100 / 400)
    rest = np.array([30 - 0.075 * 100, -0.075 * 300])
    assert found.error == pytest.approx(math.sqrt(2 * (rest @ rest)) / 400)


def test_the_standard_error_is_the_scatter_of_the_gain():
    rng = np.random.default_rng(0)
    gains, errors = [], []
    for _ in range(400):
        sizes = rng.integers(100, 2000, 60)
        saved = rng.normal(0.02, 0.05, 60)
        found = Gain.of([scored(2.0 - saved, sizes)], [scored(np.full(60, 2.0), sizes)])
        gains.append(found.gain)
        errors.append(found.error)
    assert np.mean(errors) == pytest.approx(np.std(gains), rel=0.1)


@pytest.mark.parametrize("size", [0.25, 1.0, 3.0, 10.0])
def test_a_true_gain_is_almost_never_contradicted(size: float):
    """size: the gain, in standard errors of either text."""
    rng = np.random.default_rng(1)
    error, trials = 0.005, 4000
    here, there = (size * error + rng.normal(0, error, trials) for _ in range(2))
    kept = there > 0  # it was kept for a gain on the validation text
    wrong = [Gain(h, error).contradicts(t, 0.0) for h, t in zip(here[kept], there[kept], strict=True)]
    assert np.mean(wrong) < (0.05 if size < 1 else 0.04)


@pytest.mark.parametrize("gain", [0.05, 0.3, 2.0])
@pytest.mark.parametrize("here", [0.0, -0.01, -0.5])
def test_a_gain_that_only_the_validation_text_has_is_always_contradicted(gain: float, here: float):
    rng = np.random.default_rng(2)
    sizes = rng.integers(500, 3000, 100)
    for _ in range(100):
        candidate = scored(2.0 - here + rng.normal(0, 0.05, 100), sizes)
        assert Gain.of([candidate], [scored(np.full(100, 2.0), sizes)]).contradicts(gain, 0.0)


def test_a_simplification_may_be_a_little_worse_and_not_much():
    assert not Gain(-0.01, 0.002).contradicts(-0.005, margin=0.015)
    assert Gain(-0.03, 0.002).contradicts(-0.005, margin=0.015)
    assert not Gain(-0.001, 0.002).contradicts(-0.0005, margin=0.0)


class Text:
    """In the place of `confirmation_bits`: learning rates below `carries` gain nothing on this text."""

    def __init__(self, carries: float = 0.0):
        self.carries, self.asked, self.trouble = carries, [], dict[float, list[Exception]]()

    def __call__(
        self, run: Path, code: Path | None, config: Config, *_: Any, documents: np.ndarray, **given: Any
    ) -> Any:
        rate = config.optimizer.matrix_lr
        assert (run / "checkpoint.safetensors").is_file()
        assert given["scratch"].is_dir()
        if self.trouble.get(rate):
            raise self.trouble[rate].pop(0)
        self.asked.append((rate, documents.tolist()))
        sizes = np.full(len(documents), 100)
        return scored(np.full(len(documents), 77.0 + max(rate, self.carries)), sizes)


@pytest.fixture
def text(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Two pieces of confirmation text."""
    text = [np.arange(20), np.arange(20, 40)]
    monkeypatch.setattr("mlx_autoresearch.research.confirmation.pieces", lambda data, tokens: text)
    return text


def searched(
    repository: Path, tiny: Config, confirm: Any, *rates: float, **settings: Any
) -> tuple[list[Record], Quiet]:
    steps = [{"hypothesis": f"rate {r}", "overrides": {"optimizer.matrix_lr": r}} for r in rates]
    config = make_search(tiny, steps, **{"seeds": SEEDS} | settings)
    search = Search.start(config, repository / "runs", repository, run_trial=free_trial, confirm=confirm)
    run_search(search, view := Quiet())
    assert search.workspace.best == search.best.commit
    return [r for r in search.ledger.records() if r.event == "experiment"], view


def test_a_gain_that_does_not_carry_over_is_rejected_and_every_keep_takes_a_fresh_piece(
    repository: Path, tiny: Config, text: list[np.ndarray]
) -> None:
    confirm = Text(carries=0.02)
    records, view = searched(repository, tiny, confirm, 0.02, 0.001, 0.5)
    assert [(r.status, r.confirmed) for r in records] == [("keep", True), ("rejected", False), ("discard", None)]
    assert records[0].reason.endswith(YES)
    assert records[1].reason == NO
    for rates, piece in (({0.04, 0.02}, text[0]), ({0.02, 0.001}, text[1])):  # both models, on a piece of their own
        assert {rate for rate, documents in confirm.asked if documents == piece.tolist()} == rates
    told = (repository / "runs/test/ledger.jsonl").read_text() + (repository / "runs/test/results.tsv").read_text()
    assert "77." not in told  # nothing of what this text needs
    assert not any("77." in line or "begins again" in line for line in view.lines)


def test_pieces_begin_again_and_that_is_said_once(repository: Path, tiny: Config, text: list[np.ndarray]) -> None:
    confirm = Text()
    records, view = searched(repository, tiny, confirm, 0.03, 0.02, 0.01, 0.001, decision={"greedy": True})
    assert [r.confirmed for r in records] == [True] * 4
    assert [documents[0] for _, documents in confirm.asked[::2]] == [0, 20, 0, 20]
    assert sum("begins again with the first" in line for line in view.lines) == 1


def test_without_text_a_search_says_so_and_decides(repository: Path, tiny: Config) -> None:
    records, view = searched(repository, tiny, None, 0.02)
    assert [(r.status, r.confirmed) for r in records] == [("keep", None)]
    assert sum("too short to confirm keeps" in line for line in view.lines) == 1


def test_trouble_with_the_scoring(repository: Path, tiny: Config, text: list[np.ndarray]) -> None:
    confirm = Text()
    confirm.trouble = {
        0.03: [GPUInterrupted("once")],
        0.02: [GPUInterrupted("twice"), GPUInterrupted("twice")],
        0.01: [MetricRefused("the model's logits are not finite")],
    }
    records, _ = searched(repository, tiny, confirm, 0.03, 0.02, 0.01)
    assert [r.status for r in records] == ["keep", "crash", "rejected"]
    assert records[2].reason == "metric: the model's logits are not finite"


class Tidy(Quiet):
    """Deletes the starting point's weights while the first experiment trains."""

    def __init__(self, home: Path) -> None:
        super().__init__()
        self._home = home

    def doing(self, what: str) -> None:
        if what.startswith("experiment 1, seed"):
            for weights in self._home.glob("experiments/0000/*/*.safetensors"):
                weights.unlink()


@pytest.mark.parametrize("confirmed", [True, None])
def test_weights_that_somebody_deleted_are_trained_again_where_they_are_needed(
    repository: Path, tiny: Config, request: pytest.FixtureRequest, confirmed: bool | None
) -> None:
    if confirmed:
        request.getfixturevalue("text")
    steps = [{"hypothesis": "a rate", "overrides": {"optimizer.matrix_lr": 0.02}}]
    config = make_search(tiny, steps, seeds=SEEDS)
    search = Search.start(config, repository / "runs", repository, run_trial=free_trial, confirm=Text())
    run_search(search, Tidy(search.home))
    [made] = [r for r in search.ledger.records() if r.event == "experiment"]
    assert (made.status, made.confirmed) == ("keep", confirmed)
    again = [r for r in search.ledger.records() if (r.event, r.number) == ("remeasure", 0)]
    assert bool(again) == bool(confirmed)


def test_records_of_before_have_no_answer(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(RECORD)
    values = json.loads(ledger.path.read_text())
    ledger.path.write_text(json.dumps({k: v for k, v in values.items() if k not in ("confirmed", "simpler")}) + "\n")
    assert Ledger(ledger.path).records() == [RECORD]
