from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import pytest

from mlx_autoresearch.errors import MetricRefused
from mlx_autoresearch.metric.score import score, scores
from mlx_autoresearch.training import scoring
from mlx_autoresearch.training.data import open_data
from mlx_autoresearch.training.scoring import for_scoring, score_model, trained_model
from mlx_autoresearch.training.setup import make_model
from tests.support.runs import make_config, train


@pytest.mark.parametrize("kernels", ["auto", "custom"])
def test_scoring_leaves_the_callers_model_as_it_was(corpus: Path, kernels: str) -> None:
    config = make_config(corpus)
    model = make_model(config)
    model.kernels = kernels  # type: ignore[assignment]
    with for_scoring(model):
        assert model.kernels == "mlx"
    assert model.kernels == kernels
    score_model(model, config, open_data(config))
    assert model.kernels == kernels


def test_scoring_that_fails_leaves_the_callers_model_as_it_was(corpus: Path) -> None:
    config = make_config(corpus)
    model = make_model(config)
    model.kernels = "custom"
    model.lm_head.weight = mx.full(model.lm_head.weight.shape, float("nan"))
    with pytest.raises(MetricRefused, match="not finite"):
        score_model(model, config, open_data(config))
    assert model.kernels == "custom"


def test_a_run_is_scored_as_its_checkpoint_is_by_anybody(corpus: Path, tmp_path: Path) -> None:
    """Compiled or not: the metric has the same digits, which are those of the summary."""
    config = make_config(corpus)
    run, summary = train(config, tmp_path)
    bpb = score(trained_model(run), config, open_data(config))
    assert scores(bpb) == {key: summary[key] for key in ("val_bpb", "eval_tokens", "eval_share")}


def test_a_training_that_is_not_scored_says_so(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    from mlx_autoresearch.training.progress import Reporter
    from tests.support.runs import train_in

    class Ended(Reporter):
        ends = 0

        def trained(self) -> None:
            self.ends += 1

    monkeypatch.setattr(scoring, "score", None)  # it must not be called
    reporter = Ended(io.StringIO())
    summary = train_in(tmp_path / "run", make_config(corpus), score=False, reporter=reporter)
    assert [summary[key] for key in ("val_bpb", "eval_tokens", "eval_share")] == [None] * 3
    assert reporter.ends == 1
    assert "evaluating" not in reporter.stream.getvalue()  # type: ignore[attr-defined]
