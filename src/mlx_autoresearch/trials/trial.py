"""Runs one trial: trains a configuration, with the installed code or an untrusted snapshot of it, and scores it."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import RunFailed
from mlx_autoresearch.ledger.ledger import Status, Trial
from mlx_autoresearch.machine.paths import cache_dir
from mlx_autoresearch.plain_text import one_line, printable
from mlx_autoresearch.sandbox.command import Outcome, Running, clean_environment, temporary_folder
from mlx_autoresearch.training.run import CHECKPOINT, SUMMARY, Run

Say = Callable[[Mapping[str, Any]], None]  # told {"event": "waiting" | "start" | "step" | "trained" | "finish", ...}

_LONGEST_MARK = 65_536  # characters
_REJECTED = ("guard", "metric", "output", "budget")


@dataclass(frozen=True)
class Limits:
    """What a trial may take.

    startup_seconds: imports, compilation and the first step. training_seconds: hard limit of the rest of a training
    that is given in steps; one in seconds has its budget. evaluate_seconds: scoring. memory_mb: resident set of the
    whole process tree, MiB; None for no limit.
    """

    startup_seconds: float = 300.0
    training_seconds: float = 86_400.0
    evaluate_seconds: float = 1800.0
    memory_mb: float | None = None

    def wall_seconds(self, config: Config, *, score: bool) -> float:
        """Hard limit of a training process, which also scores or does not."""
        budget = self.training_seconds if config.train.max_steps is not None else 1.1 * config.train.time_budget + 5
        return self.startup_seconds + budget + (self.evaluate_seconds if score else 0.0)


class TrialFailed(Exception):
    """A trial without a result.

    kind: "out of memory", "nan", "exception", "setup", "no checkpoint", "timeout", or, where somebody tried to have it
    otherwise than allowed, "guard", "metric", "output", "budget". detail: printable; its first line says it all.
    """

    def __init__(self, kind: str, detail: str):
        super().__init__(f"{kind}: {one_line(detail)}")
        self.kind, self.detail = kind, printable(detail)


def status_of(kind: str) -> Status:
    """How the ledger calls a failure of this kind."""
    return "timeout" if kind == "timeout" else "rejected" if kind in _REJECTED else "crash"


def run_trial(
    config: Config,
    *,
    seed: int,
    folder: Path,
    code: Path | None,
    limits: Limits,
    mark: str = "trial",
    say: Say = lambda news: None,
) -> Trial:
    """Train `config` with `seed` into the new run folder `folder`, and score it on the validation split.

    code: None for the installed modules, in one process that also scores; or a snapshot of the editable files, which
    is trained in one confined process, turned into logits in two others, and scored here. mark: see `Running`.
    What it printed goes into FOLDER.txt. Raises TrialFailed.
    """
    config = config.model_copy(
        update={"train": config.train.model_copy(update={"seed": seed, "checkpoint_every": None})}
    )
    started = time.monotonic()
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    output = folder.parent / f"{folder.name}.txt"
    with _device(say):
        scratch = temporary_folder(folder.parent, ".scratch")
        try:
            clock = _train(
                config, folder if code is None else scratch / "run", code, limits, mark, scratch, output, say
            )
            if code is not None:
                _check_folder(scratch / "run")
                (scratch / "run").rename(folder)
                Run(folder).save_config(config)  # who reads it later need not ask who wrote it
            summary = _summary(folder)
            if code is not None:
                _check_budget(config, clock)
                summary |= _score(config, folder, code, limits, mark, scratch)
                summary |= {"num_steps": clock.steps, "training_seconds": clock.training_seconds}
                Run(folder).save_summary(summary)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return Trial(
        seed=seed,
        val_bpb=summary["val_bpb"],
        steps=int(summary["num_steps"]),
        tokens=int(summary["num_steps"]) * config.train.total_batch_size,
        training_seconds=summary["training_seconds"],
        total_seconds=time.monotonic() - started,
        peak_memory_mb=summary["peak_memory_mb"],
        num_params_M=summary["num_params_M"],
        run=str(folder),
    )


class _device:
    """One training at a time on this machine: others would distort its time budget."""

    def __init__(self, say: Say):
        self._say = say
        cache_dir().mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(cache_dir() / "device.lock")

    def __enter__(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            self._say({"event": "waiting"})
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@dataclass
class _Clock:
    """The parent's own view of a training, from the marks that the child sends."""

    say: Say
    steps: int = 0
    first: float = 0.0
    last: float = 0.0
    trouble: dict[str, str] = field(default_factory=dict)

    @property
    def training_seconds(self) -> float:
        """Wall time of all steps but the first."""
        return self.last - self.first

    def read(self, descriptor: int) -> None:
        with os.fdopen(descriptor, errors="replace") as lines:
            for line in iter(lambda: lines.readline(_LONGEST_MARK), ""):
                now = time.monotonic()
                try:
                    news = json.loads(line)
                    event = news["event"]
                except (ValueError, TypeError, KeyError, RecursionError):
                    continue
                if event == "step":
                    self.steps += 1
                    self.first = self.first or now
                    self.last = now
                elif event == "trouble":
                    self.trouble = {"kind": str(news.get("kind")), "detail": str(news.get("detail"))}
                self.say(news)


def _train(
    config: Config, folder: Path, code: Path | None, limits: Limits, mark: str, scratch: Path, output: Path, say: Say
) -> _Clock:
    clock = _Clock(say)
    seconds = limits.wall_seconds(config, score=code is None)
    marks, write = os.pipe()
    reader = threading.Thread(target=clock.read, args=(marks,), daemon=True)
    reader.start()
    argv = [sys.executable, "-P", "-m", "mlx_autoresearch.trials.child", "train", str(folder)]
    argv += [json.dumps(config.model_dump(mode="json")), str(code.absolute()) if code else "", "0" if code else "1"]
    with Running(
        [*argv, str(write)],
        cwd=scratch,
        env=_environment(code, scratch),
        seconds=seconds,
        memory_mb=limits.memory_mb,
        writable=None if code is None else [scratch],
        mark=mark,
        keep=[write],
    ) as running:
        outcome = running.wait()
    reader.join(5)
    output.write_text(outcome.output, encoding="utf-8")
    _check_outcome(outcome, clock.trouble, limits, seconds, untrusted=code is not None)
    if not (folder / CHECKPOINT).is_file():
        raise TrialFailed("no checkpoint", "the training ended without a checkpoint")
    return clock


def _environment(code: Path | None, scratch: Path) -> dict[str, str]:
    """Compiled kernels are shared through TMPDIR by trusted processes; others get copies."""
    temporary = Path(tempfile.gettempdir())
    if code is not None:
        if (temporary / "mlx").is_dir():
            shutil.copytree(temporary / "mlx", scratch / "mlx", dirs_exist_ok=True, copy_function=_copy_library)
        temporary = scratch
    return clean_environment(scratch, temporary, MLX_AUTORESEARCH_CACHE=str(cache_dir().absolute()))


def _copy_library(source: str, target: str) -> None:
    if source.endswith(".so"):
        shutil.copyfile(source, target)


def _check_outcome(
    outcome: Outcome, trouble: dict[str, str], limits: Limits, seconds: float, *, untrusted: bool
) -> None:
    if outcome.ended == "timeout":
        raise TrialFailed("timeout", f"not finished after {seconds:.0f} s; killed")
    if outcome.ended == "memory":
        raise TrialFailed("out of memory", f"took {outcome.peak_mb:,.0f} MiB of {limits.memory_mb:,.0f}; killed")
    if outcome.ended == "output":
        raise TrialFailed("output", "printed without end; killed")
    if outcome.ended != "exit":
        raise TrialFailed("guard", "its supervisor was killed")
    if outcome.leftovers and untrusted:
        raise TrialFailed("guard", f"left {outcome.leftovers} processes running; killed")
    if outcome.returncode == 0:
        return
    if trouble:
        raise TrialFailed(trouble["kind"], trouble["detail"])
    last = outcome.output.strip()[-4000:]
    if outcome.returncode == -9:
        raise TrialFailed("out of memory", "killed by the system, most likely for want of memory")
    if "bad_alloc" in last or "MemoryError" in last or "out of memory" in last:
        raise TrialFailed("out of memory", last.split("\n")[-1])
    code = outcome.returncode or 0
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    raise TrialFailed("exception", (last.split("\n")[-1] or how) + "\n" + last)


def _check_folder(folder: Path) -> None:
    """Raise TrialFailed for a run folder with anything but files in it: what we write there must not go elsewhere."""
    if folder.is_symlink() or any(path.is_symlink() or not path.is_file() for path in folder.iterdir()):
        raise TrialFailed("guard", "the run's folder holds something else than files")


def _summary(folder: Path) -> dict[str, Any]:
    """summary.json, whoever wrote it."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        for name in ("num_steps", "training_seconds", "peak_memory_mb", "num_params_M"):
            if not math.isfinite(summary[name]):
                raise ValueError(name)
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise TrialFailed("no checkpoint", f"the training left no summary: {error}") from None
    return summary


def _check_budget(config: Config, clock: _Clock) -> None:
    budget = config.train.time_budget
    if config.train.max_steps is not None:
        if clock.steps != config.train.max_steps:
            raise TrialFailed("budget", f"trained {clock.steps} steps where {config.train.max_steps} are allowed")
    elif clock.training_seconds > 1.1 * budget + 1:
        raise TrialFailed("budget", f"trained for {clock.training_seconds:.1f} s where {budget:g} s are allowed")


def _score(config: Config, folder: Path, code: Path, limits: Limits, mark: str, scratch: Path) -> dict[str, Any]:
    """The metric's entries, computed here from logits that other processes compute."""
    from mlx_autoresearch.metric.score import score, scores
    from mlx_autoresearch.training.data import open_data

    from .remote_model import RemoteModel, check_remote_causality

    @contextmanager
    def remote() -> Iterator[RemoteModel]:
        exchange = temporary_folder(scratch, "exchange")
        try:
            with RemoteModel(
                folder,
                code,
                config.data.vocab_size,
                exchange=exchange,
                env=_environment(code, exchange),
                seconds=limits.evaluate_seconds,
                memory_mb=limits.memory_mb,
                mark=mark,
            ) as model:
                yield model
        finally:
            shutil.rmtree(exchange, ignore_errors=True)  # the second process must find nothing that the first left

    data = open_data(config)  # verified, after the untrusted training
    try:
        with remote() as first:
            bpb = score(first, config, data)
        with remote() as second:
            check_remote_causality(first, second)
    except RunFailed as error:
        raise TrialFailed("metric", str(error)) from None
    return scores(bpb)
