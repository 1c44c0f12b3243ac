from __future__ import annotations

import io
import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import typer

from mlx_autoresearch.cli import winner as winner_commands
from mlx_autoresearch.config.load import load_config
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.data.tokenizer import Tokenizer
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.ledger.ledger import Trial
from mlx_autoresearch.recipe.model import GPT
from mlx_autoresearch.research import winner as winner_module
from mlx_autoresearch.research.loop import Research
from mlx_autoresearch.research.winner import Winner, next_token
from mlx_autoresearch.training.progress import Reporter
from mlx_autoresearch.training.trainer import train_in
from tests.support.laboratory import Quiet, free_trial, git, make_research

CHANGED = """\
diff --git a/src/mlx_autoresearch/recipe/schedule.py b/src/mlx_autoresearch/recipe/schedule.py
--- a/src/mlx_autoresearch/recipe/schedule.py
+++ b/src/mlx_autoresearch/recipe/schedule.py
@@ -1,3 +1,4 @@
+# changed
{context}
"""


def trained_here(config: Config, *, seed: int, folder: Path, code: Path | None, **_: object) -> Trial:
    """In the place of `run_trial`: really trains, in this process and with the installed code."""
    config = config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})
    summary = train_in(folder, config, score=True, reporter=Reporter(io.StringIO()))
    bpb = summary["val_bpb"] - 0.1 * config.optimizer.matrix_lr  # so that the script's second step wins
    return Trial(seed, bpb, summary["num_steps"], 1, 1.0, 1.0, 1.0, 1.0, str(folder))


def finished(repository: Path, start: Config, run=trained_here, **step: object) -> Path:
    """The home of a research whose experiment 1, with a higher learning rate, was kept."""
    steps = [{"hypothesis": "faster", "overrides": {"optimizer.matrix_lr": 0.9}, **step}]
    config = make_research(start, steps, decision={"greedy": True})
    research = Research.start(config, repository / "runs" / "research", repository, run=run)
    research.go(Quiet())
    assert research.ledger.records()[1].status == "keep"
    return research.home


def test_the_winner_is_trained_sampled_exported_and_scored(
    repository: Path, tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = finished(repository, tiny)
    winner = Winner.of(home)
    assert winner.record.number == 1

    scores = winner.score_holdout()
    assert json.loads((home / "holdout.json").read_text()) == scores
    assert scores["best_val_bpb"] == winner.record.val_bpb
    assert 0 < scores["best_holdout_bpb"] < 20
    assert scores["best_holdout_bpb"] != scores["best_val_bpb"]
    start, end = scores["start_holdout_bpb"], scores["best_holdout_bpb"]
    assert scores["holdout_gain_percent"] == pytest.approx(100 * (1 - end / start))

    own = winner.run()
    monkeypatch.setattr(winner_module, "run_trial", trained_here)
    trial = winner.train(["train.max_steps=8"], seed=7)
    assert trial.steps == 8
    assert winner.run().path == Path(trial.run) != own.path
    longer = winner.run().config()
    assert (longer.optimizer.matrix_lr, longer.train.seed, longer.train.max_steps) == (0.9, 7, 8)

    text = winner.sample("ab", tokens=12, temperature=0.8, seed=3)
    assert text.startswith("ab")
    assert text == winner.sample("ab", tokens=12, temperature=0.8, seed=3)

    winner.export(tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "config.yaml",
        "model.safetensors",
        "tokenizer.json",
    ]
    config = load_config(tmp_path / "out" / "config.yaml")
    assert config == longer
    model = GPT(config.gpt_config(), compute_dtype=mx.float32)
    model.load_weights(str(tmp_path / "out" / "model.safetensors"))  # strict: every parameter, by name and shape
    tokenizer = Tokenizer.load(tmp_path / "out" / "tokenizer.json")
    ids = mx.array([tokenizer.encode("ab cd")])
    with winner.model(winner.run(), winner.record) as ours:
        assert mx.array_equal(ours.hidden(ids), model.hidden(ids))


def test_it_is_checked_out_beside_the_users_checkout(repository: Path, tiny: Config, tmp_path: Path) -> None:
    home = finished(repository, tiny, run=lambda config, **rest: better(config, **rest))
    before = git(repository, "status", "--porcelain"), git(repository, "rev-parse", "HEAD")
    winner = Winner.of(home)
    folder = winner.check_out(tmp_path / "tree", "winner")
    assert "matrix_lr: 0.9" in (folder / "research" / "experiment.yaml").read_text()
    assert git(repository, "rev-parse", "winner").strip() == winner.record.commit
    assert (git(repository, "status", "--porcelain"), git(repository, "rev-parse", "HEAD")) == before
    with pytest.raises(UserError, match="exists"):
        winner.check_out(tmp_path / "tree")
    with pytest.raises(UserError, match="winner"):
        winner.check_out(tmp_path / "other", "winner")


def better(config: Config, **rest) -> Trial:
    """Higher learning rates win."""
    trial = free_trial(config, **rest)
    return Trial(**{**vars(trial), "val_bpb": 3.0 - config.optimizer.matrix_lr})


def test_changed_code_is_exported_and_runs_in_a_process_of_its_own(
    repository: Path, tiny: Config, tmp_path: Path
) -> None:
    path = repository / "src" / "mlx_autoresearch" / "recipe" / "schedule.py"
    context = "\n".join(" " + line for line in path.read_text().split("\n")[:3])
    home = finished(repository, tiny, patch=CHANGED.format(context=context))
    winner = Winner.of(home)
    winner.export(tmp_path / "out")
    exported = tmp_path / "out" / "code" / "src" / "mlx_autoresearch" / "recipe" / "schedule.py"
    assert exported.read_text().startswith("# changed\n")
    assert winner.sample("ab", tokens=2, temperature=0, seed=0).startswith("ab")


def test_without_a_winner_or_its_checkpoint_it_says_so(repository: Path, tiny: Config, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no kept experiment"):
        Winner.of(tmp_path)
    home = finished(repository, tiny, run=better)
    for checkpoint in home.glob("experiments/*/*/checkpoint.safetensors"):
        checkpoint.unlink()
    with pytest.raises(UserError, match="no checkpoint"):
        Winner.of(home).run()
    with pytest.raises(UserError, match="no checkpoint"):
        Winner.of(home).score_holdout()


class Biased:
    """Logits of ln(p), whatever the tokens."""

    def __init__(self, p: list[float]):
        self.p = p

    def hidden(self, idx: mx.array) -> mx.array:
        return mx.zeros((*idx.shape, 1))

    def logits(self, hidden: mx.array) -> mx.array:
        return mx.log(mx.array(self.p)) + mx.zeros((*hidden.shape[:-1], len(self.p)))


def test_tokens_are_drawn_as_often_as_the_softmax_says() -> None:
    rng = np.random.default_rng(0)
    p = np.array([0.5, 0.3, 0.2])
    for temperature in (1.0, 0.5):
        expected = p ** (1 / temperature) / (p ** (1 / temperature)).sum()
        drawn = [next_token(Biased(p.tolist()), [0], temperature, rng) for _ in range(2000)]
        assert np.abs(np.bincount(drawn, minlength=3) / 2000 - expected).max() < 0.04
    assert next_token(Biased(p.tolist()), [0], 0.0, rng) == 0


def test_the_commands_print_what_a_script_can_read(
    repository: Path, tiny: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = str(finished(repository, tiny))
    app = typer.Typer()
    app.command()(winner_commands.report)
    app.command()(winner_commands.best)
    app(
        ["best", home, "--holdout", "--export", str(tmp_path / "out"), "--sample", "ab", "--tokens", "3"],
        standalone_mode=False,
    )
    app(["report", home], standalone_mode=False)
    out = capsys.readouterr().out
    lines = dict(line.split(": ", 1) for line in out.splitlines() if ": " in line)
    assert lines["experiment"] == "1" and lines["hypothesis"] == "faster"
    assert float(lines["best_holdout_bpb"]) > 0
    assert str(tmp_path / "out" / "model.safetensors") in out
    assert "best holdout bpb" in (Path(home) / "report.html").read_text()
    with pytest.raises(UserError, match="--checkout"):
        app(["best", home, "--branch", "x"], standalone_mode=False)
