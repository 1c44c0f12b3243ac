from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import typer

from mlx_autoresearch.cli import winner as winner_commands
from mlx_autoresearch.config.load import load_config
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.data.tokenizer import Tokenizer
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.ledger.ledger import Trial
from mlx_autoresearch.methods import FIRST
from mlx_autoresearch.metric.score import score
from mlx_autoresearch.recipe.model import GPT
from mlx_autoresearch.research import winner_model
from mlx_autoresearch.research.home import Search
from mlx_autoresearch.research.winner import Winner
from mlx_autoresearch.training.progress import Reporter
from mlx_autoresearch.training.trainer import resume
from tests.support.laboratory import free_trial, git, make_search, run_search
from tests.support.runs import train_in

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
    bpb = summary["val_bpb"] - config.optimizer.matrix_lr  # so that the script's second step wins
    return Trial(seed, bpb, summary["num_steps"], 1, 1.0, 1.0, 1.0, 1.0, str(folder))


def finished(repository: Path, start: Config, run=trained_here, **step: object) -> Path:
    """The home of a search whose experiment 1, with a higher learning rate, was kept."""
    steps = [{"hypothesis": "faster", "overrides": {"optimizer.matrix_lr": 0.9}, **step}]
    config = make_search(start, steps, decision={"greedy": True})
    search = Search.start(config, repository / "runs" / "research", repository, run_trial=run)
    run_search(search)
    assert search.ledger.records()[1].status == "keep"
    return search.home


def test_the_winner_is_trained_sampled_exported_and_scored(
    repository: Path, tiny: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = finished(repository, tiny)
    winner = Winner.of(home)
    assert winner.record.number == 1

    scores = winner_model.score_holdout(winner)
    assert json.loads((home / "holdout.json").read_text()) == scores
    assert scores["best_val_bpb"] == winner.record.val_bpb
    assert 0 < scores["best_holdout_bpb"] < 20
    assert scores["best_holdout_bpb"] != scores["best_val_bpb"]
    start, end = scores["start_holdout_bpb"], scores["best_holdout_bpb"]
    assert scores["holdout_gain_percent"] == pytest.approx(100 * (1 - end / start))

    own = winner_model.newest_run(winner)
    trained = winner_model.train(winner, ["train.max_steps=8"], seed=7)
    assert trained["num_steps"] == 8
    assert winner_model.newest_run(winner).path == Path(trained["run"]) != own.path
    longer = winner_model.newest_run(winner).config()
    assert (longer.optimizer.matrix_lr, longer.train.seed, longer.train.max_steps) == (0.9, 7, 8)
    shown = capsys.readouterr()
    assert "step" in shown.err
    assert shown.out == ""  # what a script reads is the command's own

    text = winner_model.sample(winner, "ab", tokens=12, temperature=0.8, seed=3)
    assert text.startswith("ab")
    assert text == winner_model.sample(winner, "ab", tokens=12, temperature=0.8, seed=3)

    winner_model.export(winner, tmp_path / "out")
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
    with winner_model.model_of(winner, winner_model.newest_run(winner), winner.record) as ours:
        assert mx.array_equal(ours.hidden(ids), model.hidden(ids))


def test_the_holdout_is_scored_with_the_arithmetic_of_validation(
    repository: Path, tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = finished(repository, tiny.model_copy(update={"kernels": "auto"}))
    winner = Winner.of(home)
    run = winner_model.newest_run(winner)
    with winner_model.model_of(winner, run, winner.record) as model:
        assert isinstance(model, GPT)
        assert model.kernels == "mlx"
    monkeypatch.setattr(winner_model, "measure_holdout", score)
    summary = json.loads((run.path / "summary.json").read_text())
    assert winner_model.score_holdout(winner)["best_holdout_bpb"] == summary["val_bpb"]


def test_a_stopped_training_of_the_winner_keeps_a_checkpoint_and_can_be_resumed(
    repository: Path, tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    winner = Winner.of(finished(repository, tiny))
    own = winner_model.newest_run(winner)

    def stop(self: Reporter, record: dict[str, Any], remaining: float) -> None:
        if record["step"] == 20:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            winner_model.train(winner, ["train.max_steps=30", "train.checkpoint_every=0.001"], seed=7)
    [stopped] = home_runs(winner)
    assert (stopped / "checkpoint.safetensors").is_file()
    assert winner_model.newest_run(winner).path == own.path  # a half-trained model is not the winner's
    resume(stopped, reporter=Reporter(io.StringIO()))
    assert winner_model.newest_run(winner).path == stopped


def home_runs(winner: Winner) -> list[Path]:
    """Where the winner has been trained again."""
    return [path for path in winner.folder.iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["train.seed=7"], "--seed 7"),
        (["train={seed: 7}"], "--seed 7"),
        (["train.max_steps=8", "train.time_budget=3"], "time_budget has no effect"),
        (["train.sead=7"], "did you mean"),
    ],
)
def test_a_setting_without_effect_is_refused(repository: Path, tiny: Config, settings: list[str], said: str) -> None:
    winner = Winner.of(finished(repository, tiny, run=better))
    with pytest.raises(UserError, match=said):
        winner_model.train(winner, settings, seed=42)
    assert home_runs(winner) == [] if winner.folder.exists() else True


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
    repository: Path, tiny: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = repository / "src" / "mlx_autoresearch" / "recipe" / "schedule.py"
    context = "\n".join(" " + line for line in path.read_text().split("\n")[:3])
    home = finished(repository, tiny, patch=CHANGED.format(context=context))
    winner = Winner.of(home)
    with pytest.raises(UserError, match=r"train\.checkpoint_every has no effect"):
        winner_model.train(winner, ["train.checkpoint_every=1"], seed=7)
    with pytest.raises(UserError, match=r"^unknown key recipe\.q"):  # as for installed code, whose setup is here
        winner_model.train(winner, ["recipe.q=1"], seed=7)
    trained = winner_model.train(winner, ["train.max_steps=8"], seed=7)
    assert trained["num_steps"] == 8
    assert "step 1" in capsys.readouterr().err
    assert winner_model.newest_run(winner).path == Path(trained["run"])
    winner_model.export(winner, tmp_path / "out")
    exported = tmp_path / "out" / "code" / "src" / "mlx_autoresearch" / "recipe" / "schedule.py"
    assert exported.read_text().startswith("# changed\n")
    assert winner_model.sample(winner, "ab", tokens=2, temperature=0, seed=0).startswith("ab")


def test_a_winner_of_another_metric_is_not_compared_with_its_holdout(repository: Path, tiny: Config) -> None:
    winner = Winner.of(finished(repository, tiny, run=better))
    old = replace(winner, record=replace(winner.record, methods=FIRST))
    with pytest.raises(UserError, match=r"begun with version 1 of the metric \(now 2\)"):
        winner_model.score_holdout(old)
    assert not (winner.home / "holdout.json").exists()


def test_without_a_winner_or_its_checkpoint_it_says_so(repository: Path, tiny: Config, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no kept experiment"):
        Winner.of(tmp_path)
    home = finished(repository, tiny, run=better)
    for checkpoint in home.glob("experiments/*/*/checkpoint.safetensors"):
        checkpoint.unlink()
    with pytest.raises(UserError, match="no checkpoint"):
        winner_model.newest_run(Winner.of(home))
    with pytest.raises(UserError, match="no checkpoint"):
        winner_model.score_holdout(Winner.of(home))


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


def moved(home: Path, tmp_path: Path) -> Path:
    return Path(shutil.move(home.parents[2], tmp_path / "moved")) / "runs/research/test"


def copied(home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(home.parents[2], tmp_path / "copy", symlinks=True)) / "runs/research/test"


def renamed(home: Path, tmp_path: Path) -> Path:
    return home.rename(home.with_name("another"))


def of_an_earlier_version(home: Path, tmp_path: Path) -> Path:
    """It had a worktree of the repository, which somebody has deleted."""
    git(home.parents[2], "worktree", "add", "-q", str(home / "worktree"), "research/test")
    shutil.rmtree(home / "worktree")
    return home


@pytest.mark.parametrize("change", [moved, copied, renamed, of_an_earlier_version])
def test_where_the_searchs_folder_is_elsewhere_or_of_an_earlier_version_it_is_as_before(
    change: Callable[[Path, Path], Path], repository: Path, tiny: Config, tmp_path: Path
) -> None:
    path = repository / "src" / "mlx_autoresearch" / "recipe" / "schedule.py"
    context = "\n".join(" " + line for line in path.read_text().split("\n")[:3])
    home = finished(repository, tiny, patch=CHANGED.format(context=context))
    winner = Winner.of(change(home, tmp_path))
    assert winner.config().optimizer.matrix_lr == 0.9
    assert winner_model.sample(winner, "ab", tokens=2, temperature=0, seed=0).startswith("ab")
    assert winner_model.score_holdout(winner)["best_holdout_bpb"] > 0
    winner_model.export(winner, tmp_path / "out")
    assert (tmp_path / "out/code/src/mlx_autoresearch/recipe/schedule.py").read_text().startswith("# changed\n")
    resumed = Search.open(winner.home, run_trial=trained_here)
    run_search(resumed)
    assert resumed.workspace.best == winner.record.commit
    assert len(git(resumed.repository, "worktree", "list").splitlines()) == 1


def test_where_a_commit_is_gone_it_says_so_in_one_line(repository: Path, tiny: Config) -> None:
    winner = Winner.of(finished(repository, tiny, run=better))
    with pytest.raises(UserError, match=f"git .*{'f' * 40}"):
        winner.workspace.read("f" * 40, "research/experiment.yaml")
