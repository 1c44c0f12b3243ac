"""What to do with a research's winner: check it out, train it longer, let it write, export it, score it once more."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_autoresearch.config.load import load_config
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import RunFailed, UserError
from mlx_autoresearch.ledger.ledger import Ledger, Record, Trial
from mlx_autoresearch.machine.files import write_atomically
from mlx_autoresearch.machine.git import git
from mlx_autoresearch.metric.bits import LanguageModel, evaluate_bpb
from mlx_autoresearch.metric.holdout import holdout_documents
from mlx_autoresearch.report.history import HOLDOUT
from mlx_autoresearch.training.data import open_data
from mlx_autoresearch.training.run import CHECKPOINT, Run
from mlx_autoresearch.training.setup import make_model
from mlx_autoresearch.trials.limits import Limits
from mlx_autoresearch.trials.score import confined_model
from mlx_autoresearch.trials.trial import Say, TrialFailed, run_trial

from .guard import rules
from .workspace import EXPERIMENT, Workspace, repository_of_research

_WEIGHTS, _TOKENIZER, _CONFIG, _CODE = "model.safetensors", "tokenizer.json", "config.yaml", "code"


@dataclass(frozen=True)
class Winner:
    """The best experiment of the research in `home`, in the repository that it belongs to."""

    home: Path
    repository: Path
    record: Record

    @classmethod
    def of(cls, home: str | Path) -> Winner:
        """Raises UserError when nothing has been measured yet, or the repository is gone."""
        home = Path(home).absolute()
        record = Ledger(home / "ledger.jsonl").best()
        if record is None:
            raise UserError(f"{home} has no kept experiment yet: `mlx-autoresearch research start` makes one")
        return cls(home, repository_of_research(home), record)

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.repository, self.home, self.home.name)

    def check_out(self, folder: str | Path, branch: str | None = None) -> Path:
        """A worktree of the repository at the winner's commit in `folder`, which must not exist; on a new `branch`,
        where given. Raises UserError when git refuses.
        """
        folder = Path(folder).absolute()
        if folder.exists():
            raise UserError(f"{folder} exists already: choose another folder")
        how = ["-b", branch] if branch else ["--detach"]
        git(["worktree", "add", "--quiet", *how, str(folder), self.record.commit], self.repository)
        return folder

    def config(self, overrides: list[str] | None = None) -> Config:
        """The winner's configuration, with `section.key=value` settings over it."""
        text = self.workspace.read(self.record.commit, EXPERIMENT)
        if text is None:
            raise UserError(f"commit {self.record.commit[:10]} has no {EXPERIMENT}: it is of no research")
        path = self.home / "best" / _CONFIG
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.decode())
        return load_config(path, overrides or [])

    def train(self, overrides: list[str], *, seed: int, say: Say = lambda news: None) -> Trial:
        """Train the winner with settings of its own, as a rule a longer train.time_budget, into home/best/.

        Runs its code as the research did, confined where it differs from the installed one. Raises RunFailed.
        """
        config = self.config(overrides)
        folder = self.home / "best" / time.strftime("%Y%m%d-%H%M%S")
        with self.code(self.record) as code:
            try:
                return run_trial(config, seed=seed, folder=folder, code=code, limits=Limits(), say=say)
            except TrialFailed as error:
                raise RunFailed(str(error)) from None

    def run(self) -> Run:
        """The winner's newest run that has a checkpoint: one trained longer, else one of its own trials."""
        longer = sorted((p.parent for p in self.home.glob(f"best/*/{CHECKPOINT}")), reverse=True)
        for folder in [*longer, *(self.home / t.run for t in self.record.trials if t.run)]:
            if (folder / CHECKPOINT).is_file():
                return Run.open(folder)
        raise UserError(f"no checkpoint of experiment {self.record.number} is left in {self.home}: train it first")

    @contextmanager
    def code(self, record: Record) -> Iterator[Path | None]:
        """The code of a record as a snapshot, while it is needed; None where it is the installed one."""
        folder = self.home / "best" / f".{record.number:04d}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            self.workspace.snapshot(record.commit, folder)
            yield None if rules.is_installed(folder) else folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def model(self, run: Run, record: Record) -> Iterator[LanguageModel]:
        """The model of a run's checkpoint; where its code is not the installed one, it stays in a confined process."""
        with ExitStack() as stack:
            code = stack.enter_context(self.code(record))
            if code is None:
                model = make_model(run.config())
                run.load_checkpoint(model)
                yield model
                return
            remote = confined_model(run.path, code, run.config(), Limits(), scratch=self.home / "best", mark="best")
            yield stack.enter_context(remote)

    def sample(self, prompt: str, *, tokens: int, temperature: float, seed: int) -> str:
        """`prompt`, continued by the winner; temperature 0 takes the likeliest token every time."""
        run = self.run()
        config = run.config()
        tokenizer = open_data(config).tokenizer
        ids = [tokenizer.bos_id, *tokenizer.encode(prompt)]
        rng = np.random.default_rng(seed)
        with self.model(run, self.record) as model:
            for _ in range(tokens):
                ids.append(next_token(model, ids[-config.model.sequence_len :], temperature, rng))
                if ids[-1] == tokenizer.bos_id:  # the document has ended
                    break
        return tokenizer.decode(ids)

    def export(self, folder: str | Path) -> list[Path]:
        """Write weights, tokenizer, configuration and, where it differs from the installed one, code to `folder`.

        model.safetensors: the GPT's parameters by name, with val_bpb and commit as metadata.
        """
        run = self.run()
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays: Any = mx.load(str(run.path / CHECKPOINT))
        weights = {k.removeprefix("model."): v for k, v in arrays.items() if k.startswith("model.")}
        summary: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            summary = json.loads((run.path / "summary.json").read_text(encoding="utf-8"))
        metadata = {"format": "mlx", "commit": self.record.commit, "val_bpb": str(summary.get("val_bpb"))}
        mx.save_safetensors(str(folder / _WEIGHTS), weights, metadata)
        config = run.config()
        shutil.copyfile(open_data(config).path / "tokenizer.json", folder / _TOKENIZER)
        (folder / _CONFIG).write_text(config.to_yaml(), encoding="utf-8")
        with self.code(self.record) as code:
            if code is not None:
                shutil.copytree(code, folder / _CODE, dirs_exist_ok=True)
        return sorted(folder.iterdir())

    def score_holdout(self) -> dict[str, float]:
        """Bits per byte of the starting point and of the winner on text that no decision has seen, into holdout.json.

        What the winner gained on the validation text by chance, it has not gained here: compare the two gains. Raises
        UserError when no checkpoint is left, or no text.
        """
        baseline = next((r for r in Ledger(self.home / "ledger.jsonl").records() if r.event == "baseline"), None)
        records = {"start": baseline, "best": self.record}
        result: dict[str, float] = {}
        for name, record in records.items():
            if record is None or record.val_bpb is None:
                continue
            runs = [self.home / t.run for t in record.trials if t.run and (self.home / t.run / CHECKPOINT).is_file()]
            if runs:
                result[f"{name}_val_bpb"] = record.val_bpb
                result[f"{name}_holdout_bpb"] = fmean(self._holdout_bpb(Run.open(path), record) for path in runs)
        if "best_holdout_bpb" not in result:
            raise UserError(
                f"no checkpoint of experiment {self.record.number} is left in {self.home}: nothing to score"
            )
        if "start_holdout_bpb" in result:
            for text in ("val", "holdout"):
                start, best = result[f"start_{text}_bpb"], result[f"best_{text}_bpb"]
                result[f"{text}_gain_percent"] = 100 * (start - best) / start
        write_atomically(self.home / HOLDOUT, json.dumps(result, indent=2) + "\n")
        return result

    def _holdout_bpb(self, run: Run, record: Record) -> float:
        config = run.config()
        data = open_data(config)
        val, metric = data.split("val"), config.evaluate.model_dump()
        tokens, offsets = holdout_documents(val.tokens, val.offsets, **metric)
        with self.model(run, record) as model:
            return evaluate_bpb(model, tokens, offsets, data.tokenizer.token_bytes, **metric).val_bpb


def next_token(model: LanguageModel, ids: list[int], temperature: float, rng: np.random.Generator) -> int:
    """Draw the token after `ids` from softmax(logits / temperature)."""
    logits = model.logits(model.hidden(mx.array([ids]))[0, -1:]).astype(mx.float32)
    scores = np.array(logits, dtype=np.float64)[0]
    if temperature == 0:
        return int(scores.argmax())
    return int((scores / temperature + rng.gumbel(size=scores.shape)).argmax())  # Gumbel-max: a draw from the softmax
