"""The winner's model: train it longer, let it write, export it, score it on the holdout."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

from mlx_autoresearch.config.keys import flatten, nest, parse_setting
from mlx_autoresearch.config.load import with_settings
from mlx_autoresearch.errors import RunFailed, UserError
from mlx_autoresearch.ledger.files import HOLDOUT
from mlx_autoresearch.ledger.ledger import Record
from mlx_autoresearch.machine import compiled
from mlx_autoresearch.machine.awake import awake
from mlx_autoresearch.machine.files import write_atomically
from mlx_autoresearch.machine.lock import device_lock
from mlx_autoresearch.metric.bits import LanguageModel
from mlx_autoresearch.metric.score import score_holdout as measure_holdout
from mlx_autoresearch.plain_text import one_line
from mlx_autoresearch.training import trainer
from mlx_autoresearch.training.data import open_data
from mlx_autoresearch.training.export import export as export_run
from mlx_autoresearch.training.files import CHECKPOINT, SUMMARY
from mlx_autoresearch.training.progress import SECONDS_BETWEEN_LINES, Reporter
from mlx_autoresearch.training.run import Run
from mlx_autoresearch.training.sample import continue_text
from mlx_autoresearch.training.scoring import trained_model
from mlx_autoresearch.trials.limits import Limits
from mlx_autoresearch.trials.score import confined_model
from mlx_autoresearch.trials.trial import TrialFailed, run_trial

from .guard.integrity import is_installed
from .view import View
from .winner import Winner

_CODE = "code"


def train(winner: Winner, overrides: Sequence[str], *, seed: int) -> dict[str, Any]:
    """Train the winner with settings of its own, as a rule a longer train.time_budget, into home/best/.

    Returns the run's folder ("run"), "val_bpb" and "num_steps". Installed code is trained as by the command `train`:
    with checkpoints, and it can be resumed. Changed code is trained as the search did, confined and without
    checkpoints on the way. Progress goes to standard error. Raises UserError for a setting that would have no effect,
    and what a training raises.
    """
    given = flatten(nest(dict(parse_setting(text, "section.key=value") for text in overrides)))
    if "train.seed" in given:
        raise UserError(f"the seed of --train is given with --seed {given['train.seed']}, not as train.seed")
    winner.require_code()
    config = winner.config(overrides)
    with code_of(winner, winner.record) as code:
        if code is None:
            config = with_settings(config, {"train.seed": seed}, "--seed")
            return trainer.train(config, runs=winner.folder, name="winner", reporter=Reporter(sys.stderr))
        if "train.checkpoint_every" in given:
            raise UserError(
                "train.checkpoint_every has no effect: the winner's code is changed code, which is trained without "
                "checkpoints on the way; leave it out"
            )
        view = View(sys.stderr, every=SECONDS_BETWEEN_LINES)
        folder = winner.folder / time.strftime("%Y%m%d-%H%M%S")
        try:
            with awake(view.say):
                trial = run_trial(config, seed=seed, folder=folder, code=code, limits=Limits(), say=view.progress)
        except TrialFailed as error:
            if error.kind == "setup":  # a setting of the user's, which the changed code refuses
                raise UserError(one_line(error.detail)) from None
            raise RunFailed(str(error)) from None
    return {"run": trial.run, "val_bpb": trial.val_bpb, "num_steps": trial.steps}


def sample(winner: Winner, prompt: str, *, tokens: int, temperature: float, seed: int) -> str:
    """`prompt`, continued by the winner; temperature 0 takes the likeliest token every time."""
    winner.require_code()
    run = newest_run(winner)
    config = run.config()
    tokenizer = open_data(config).tokenizer
    with model_of(winner, run, winner.record) as model:
        return continue_text(
            model,
            tokenizer,
            prompt,
            context=config.model.sequence_len,
            tokens=tokens,
            temperature=temperature,
            seed=seed,
        )


def export(winner: Winner, folder: str | Path) -> list[Path]:
    """Write weights, tokenizer, configuration and, where it differs from the installed one, code to `folder`.

    model.safetensors: the GPT's parameters by name, with val_bpb and commit as metadata.
    """
    winner.require_code()
    folder = Path(folder)
    export_run(newest_run(winner), folder, commit=winner.record.commit)
    with code_of(winner, winner.record) as code:
        if code is not None:
            shutil.copytree(code, folder / _CODE, dirs_exist_ok=True)
    return sorted(folder.iterdir())


def score_holdout(winner: Winner) -> dict[str, float]:
    """Bits per byte of the starting point and of the winner on text that no decision has seen, into holdout.json.

    If the gain on the validation text is partly luck, the gain here is smaller: compare the two. Waits, and says so on
    standard error, while another process of this machine trains. Raises UserError when no checkpoint is left, or no
    text.
    """
    records = {"start": winner.baseline, "best": winner.record}
    winner.record.methods.require_current(f"the search {winner.tag}")
    winner.require_code(*filter(None, records.values()))
    result: dict[str, float] = {}
    for name, record in records.items():
        if record is None or record.val_bpb is None:
            continue
        runs = [winner.home / t.run for t in record.trials if t.run and (winner.home / t.run / CHECKPOINT).is_file()]
        if runs:
            result[f"{name}_val_bpb"] = record.val_bpb
            result[f"{name}_holdout_bpb"] = fmean(_holdout_bpb(winner, Run.open(path), record) for path in runs)
    if "best_holdout_bpb" not in result:
        raise UserError(
            f"no checkpoint of experiment {winner.record.number} is left in {winner.home}: nothing to score"
        )
    if "start_holdout_bpb" in result:
        for text in ("val", "holdout"):
            start, best = result[f"start_{text}_bpb"], result[f"best_{text}_bpb"]
            result[f"{text}_gain_percent"] = 100 * (start - best) / start
    write_atomically(winner.home / HOLDOUT, json.dumps(result, indent=2) + "\n")
    return result


def newest_run(winner: Winner) -> Run:
    """The winner's newest run that has a checkpoint: one that was trained longer, to its end, or one of its trials.

    Raises UserError when none is left.
    """
    longer = sorted((p.parent for p in winner.folder.glob(f"*/{SUMMARY}")), reverse=True)
    for folder in [*longer, *(winner.home / t.run for t in winner.record.trials if t.run)]:
        if (folder / CHECKPOINT).is_file():
            return Run.open(folder)
    raise UserError(f"no checkpoint of experiment {winner.record.number} is left in {winner.home}: train it first")


@contextmanager
def model_of(winner: Winner, run: Run, record: Record) -> Iterator[LanguageModel]:
    """The model of a run's checkpoint, with the arithmetic that validation uses.

    Where its code is not the installed one, it stays in a confined process.
    """
    with ExitStack() as stack:
        code = stack.enter_context(code_of(winner, record))
        if code is None:
            stack.enter_context(compiled.kept())
            yield trained_model(run)
            return
        remote = confined_model(run.path, code, run.config(), Limits(), scratch=winner.folder, mark="best")
        yield stack.enter_context(remote)


@contextmanager
def code_of(winner: Winner, record: Record) -> Iterator[Path | None]:
    """The code of a record as a snapshot, while it is needed; None where it is the installed one."""
    with winner.snapshot(record) as folder:
        yield None if is_installed(folder) else folder


def _holdout_bpb(winner: Winner, run: Run, record: Record) -> float:
    config = run.config()
    data = open_data(config)
    with device_lock(lambda line: print(line, file=sys.stderr, flush=True)), model_of(winner, run, record) as model:
        return measure_holdout(model, config, data).val_bpb
